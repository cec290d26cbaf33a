//! Set files: a prefix a line, `#` or `;` before a comment.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::values::describe;
use crate::config::diagnostic::{Diagnostic, Severity};
use crate::config::reader::{Reader, Section};
use crate::stages::filter::{MAX_SET_PREFIXES, Prefix, PrefixSet};

/// Errors of one file that are shown: a file of another format has one a line.
const SHOWN_ERRORS: usize = 10;

/// Where set files are read from.
pub(in crate::config) struct Files {
    /// Directory that relative paths start from: that of the config file.
    pub directory: PathBuf,
}

/// The set files of a config, each read once.
pub(super) struct SetFiles<'f> {
    files: &'f Files,
    /// By path; `None` is one that is wrong, which is reported.
    read: HashMap<PathBuf, Option<Arc<PrefixSet>>>,
}

impl<'f> SetFiles<'f> {
    pub fn new(files: &'f Files) -> Self {
        Self { files, read: HashMap::new() }
    }

    /// The set that the file named by `key` holds.
    pub fn read(
        &mut self,
        section: &Section<'_>,
        reader: &mut Reader<'_>,
        key: &str,
    ) -> Option<Arc<PrefixSet>> {
        let name = section.text(reader, key)?;
        let path = self.files.directory.join(name.get_ref());
        if let Some(known) = self.read.get(&path) {
            return known.clone();
        }
        let set = match std::fs::read(&path) {
            Ok(bytes) => parse(&path, &bytes, reader),
            Err(reason) => {
                reader
                    .error(name.span(), format!("the set file {} cannot be read: {reason}", path.display()))
                    .label("paths are relative to the config file");
                None
            }
        };
        let set = set.filter(|set| {
            let fits = set.len() <= MAX_SET_PREFIXES;
            if !fits {
                reader
                    .error(name.span(), format!("the set {} is too large", path.display()))
                    .label(format!("{} prefixes; at most {MAX_SET_PREFIXES}", set.len()))
                    .help("join neighbouring prefixes, or split the file and use a rule for each part");
            } else if set.is_empty() {
                reader
                    .warning(name.span(), format!("the set {} is empty", path.display()))
                    .label("no address is in it, so the condition never holds");
            }
            fits
        });
        let set = set.map(Arc::new);
        self.read.insert(path, set.clone());
        set
    }
}

/// The prefixes of a file; what is wrong with it is reported by line.
fn parse(path: &Path, bytes: &[u8], reader: &mut Reader<'_>) -> Option<PrefixSet> {
    let file = path.display().to_string();
    let mut prefixes = Vec::new();
    let mut errors = Vec::new();
    for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        let content = line.split(|byte| matches!(byte, b'#' | b';')).next().unwrap_or_default();
        let word = content.trim_ascii();
        if word.is_empty() {
            continue;
        }
        let parsed = match str::from_utf8(word) {
            Ok(word) => word.parse::<Prefix>().map_err(|error| describe("this", &error)),
            Err(_) => {
                Err(("this is not text".to_owned(), "expected a prefix, or `#` and a comment".to_owned()))
            }
        };
        match parsed {
            Ok(prefix) => prefixes.push(prefix),
            Err((message, label)) => {
                errors.push((index, message.replace("`this`", "this"), label, line, word));
            }
        }
    }
    if errors.is_empty() {
        return Some(PrefixSet::new(path, prefixes));
    }
    let count = errors.len();
    for (shown, (index, message, label, line, word)) in errors.into_iter().enumerate() {
        let more = (shown == SHOWN_ERRORS).then(|| format!("{} more lines are wrong", count - SHOWN_ERRORS));
        let line = String::from_utf8_lossy(line);
        let word = String::from_utf8_lossy(word);
        let start = line.find(&*word).unwrap_or(0);
        let span = start..start + word.len();
        let last = more.is_some();
        let mut error = Diagnostic::at(Severity::Error, &file, &line, span, more.unwrap_or(message));
        error.line = index + 1;
        error.label(if last { "the first of them".to_owned() } else { label });
        reader.report(error);
        if last {
            break;
        }
    }
    None
}
