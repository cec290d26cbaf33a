//! `[deny]`: the dynamic deny list.

use std::path::PathBuf;

use super::filter::Files;
use super::reader::{Reader, Section};
use crate::kernel::deny::{file, too_many};

/// The file, which has to be there and in order at the start; it is read again, and watched, when the run starts.
pub(super) fn read(root: &Section<'_>, reader: &mut Reader<'_>, files: &Files) -> Option<PathBuf> {
    let section = root.table(reader, "deny", "[deny]", &["file"])?;
    section.require(reader, "file", "file = \"deny.txt\"");
    let name = section.text(reader, "file")?;
    let path = files.directory.join(name.get_ref());
    match std::fs::read_to_string(&path) {
        Ok(text) => match file::parse(&text) {
            Ok(lines) => {
                if let Some(too_many) = too_many(&lines) {
                    reader
                        .error(name.span(), format!("the deny list {} is too large", path.display()))
                        .label(too_many)
                        .help("join neighbouring addresses to prefixes, or use a rule of `[[filter]]` with `src_set`");
                }
            }
            Err(bad) => {
                reader.error(name.span(), format!("{}: {bad}", path.display())).label("in this file");
            }
        },
        Err(error) => {
            reader.error(name.span(), format!("cannot read {}: {error}", path.display())).label("this file");
        }
    }
    Some(path)
}
