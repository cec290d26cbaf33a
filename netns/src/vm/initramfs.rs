//! The file system that a machine boots with: an archive in cpio's "newc" format, which the kernel unpacks into memory.
//!
//! Source: `Documentation/driver-api/early-userspace/buffer-format.rst`.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

const DIRECTORY: u32 = 0o040_755;
const EXECUTABLE: u32 = 0o100_755;
const REGULAR: u32 = 0o100_644;
const LINK: u32 = 0o120_777;

/// An archive in the making.
pub(super) struct Initramfs {
    bytes: Vec<u8>,
    entries: u32,
    present: BTreeSet<PathBuf>,
}

impl Initramfs {
    pub(super) fn new() -> Self {
        Self { bytes: Vec::new(), entries: 0, present: BTreeSet::new() }
    }

    pub(super) fn directory(&mut self, path: &str) {
        self.entry(Path::new(path), DIRECTORY, &[]);
    }

    pub(super) fn file(&mut self, path: &str, content: &[u8]) {
        self.entry(Path::new(path), REGULAR, content);
    }

    pub(super) fn executable(&mut self, path: &str, content: &[u8]) {
        self.entry(Path::new(path), EXECUTABLE, content);
    }

    pub(super) fn link(&mut self, path: &str, target: &str) {
        self.entry(Path::new(path), LINK, target.as_bytes());
    }

    /// Puts a program of this machine into `/bin`, and the libraries it is linked with to where it looks for them.
    /// `scratch` is a directory to work in.
    pub(super) fn program(&mut self, program: &Path, scratch: &Path) -> io::Result<()> {
        let name = program.file_name().unwrap_or_default().to_string_lossy();
        self.executable(&format!("/bin/{name}"), &without_debug_info(program, &scratch.join(&*name))?);
        for library in libraries(program)? {
            let content = fs::read(&library)?;
            self.entry(&library, EXECUTABLE, &content);
        }
        Ok(())
    }

    /// The whole archive.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.raw_entry("TRAILER!!!", 0, &[]);
        self.bytes
    }

    /// Adds an entry, and the directories it lies in, unless it is there.
    fn entry(&mut self, path: &Path, mode: u32, content: &[u8]) {
        if !self.present.insert(path.to_owned()) {
            return;
        }
        if let Some(parent) = path.parent()
            && parent != Path::new("/")
        {
            self.entry(parent, DIRECTORY, &[]);
        }
        let name = path.to_string_lossy();
        self.raw_entry(name.trim_start_matches('/'), mode, content);
    }

    fn raw_entry(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.entries += 1;
        let (inode, size, name_size) = (self.entries, content.len(), name.len() + 1);
        // Inode, mode, owner, group, links, time, size, device, device of a special file, length of the name, checksum.
        self.bytes.extend(
            format!(
                "070701{inode:08x}{mode:08x}{0:08x}{0:08x}{1:08x}{0:08x}{size:08x}{0:08x}{0:08x}{0:08x}{0:08x}\
                 {name_size:08x}{0:08x}",
                0, 1
            )
            .bytes(),
        );
        self.bytes.extend(name.bytes());
        self.bytes.push(0);
        self.align();
        self.bytes.extend(content);
        self.align();
    }

    /// Names and contents end on a multiple of four bytes.
    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

/// A debug build is mostly debug information, and every byte of it would be memory of the machine.
fn without_debug_info(program: &Path, stripped: &Path) -> io::Result<Vec<u8>> {
    let done = Command::new("strip").arg("--strip-debug").arg("-o").arg(stripped).arg(program).status();
    match done {
        Ok(status) if status.success() => fs::read(stripped),
        _ => fs::read(program),
    }
}

/// The shared libraries of a program, loader included; none if it is static.
fn libraries(program: &Path) -> io::Result<Vec<PathBuf>> {
    let output = Command::new("ldd").arg(program).output()?;
    Ok(paths(&String::from_utf8_lossy(&output.stdout)))
}

/// The paths in what ldd(1) writes: `libc.so.6 => /lib/libc.so.6 (0x7f…)` or `/lib64/ld-linux-x86-64.so.2 (0x7f…)`.
fn paths(ldd: &str) -> Vec<PathBuf> {
    let lines = ldd.lines().map(|line| line.split_once("=> ").map_or(line, |(_, path)| path).trim());
    let paths = lines.filter_map(|line| line.split(" (").next());
    paths.filter(|path| path.starts_with('/')).map(PathBuf::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parents_come_first_and_once() {
        let mut archive = Initramfs::new();
        archive.file("/etc/one", b"1");
        archive.file("/etc/two", b"22222");
        let bytes = archive.finish();
        let text = String::from_utf8_lossy(&bytes);
        assert_eq!(text.matches("070701").count(), 4, "etc, etc/one, etc/two, trailer");
        assert!(text.find("etc\0") < text.find("etc/one\0"));
        assert_eq!(bytes.len() % 4, 0);
    }

    #[test]
    fn paths_of_libraries_are_read() {
        let ldd = "\tlinux-vdso.so.1 (0x00007f55)\n\tlibc.so.6 => /lib/x/libc.so.6 (0x00007f5)\n\
                   \t/lib64/ld-linux-x86-64.so.2 (0x00007f5)\n";
        assert_eq!(paths(ldd), [Path::new("/lib/x/libc.so.6"), Path::new("/lib64/ld-linux-x86-64.so.2")]);
        assert_eq!(paths("\tnot a dynamic executable\n"), [] as [&Path; 0]);
    }
}
