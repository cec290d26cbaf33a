//! Virtual machines with network cards whose drivers have what veth lacks: AF_XDP zero-copy.
//!
//! A [`Machine`] is a small Linux in QEMU, emulated (no KVM needed), with one network card `eth0` of two queues, whose
//! cable ends at a tap interface in a namespace of a [`Lab`](crate::Lab). It boots from memory in a few seconds, runs
//! commands one after the other, and is gone when dropped. What it boots is fetched by `scripts/zerocopy-images`, whose
//! directory the environment variable `XFWD_VM` names.
//!
//! Emulated time is slow and uneven: assert counts, never rates.

mod initramfs;

use std::{
    env, fmt, fs,
    io::{self, Read as _, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{self, Command},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use crate::{Child, Error, MacAddress, Namespace, Result};
use initramfs::Initramfs;

/// MAC address of a machine's network card.
pub const MAC: MacAddress = MacAddress([0x52, 0x54, 0, 0x12, 0x34, 0x56]);
/// Queues of a machine's network card; it has as many processors.
pub const QUEUES: u32 = 2;

/// Memory of a machine: packet memory of two queues, the unpacked programs, and room.
const MEMORY_MIB: u32 = 512;
/// Time to boot: three to six seconds are usual, more while a compiler has the processors.
const BOOT_PATIENCE: Duration = Duration::from_secs(90);
/// Time for one command.
const COMMAND_PATIENCE: Duration = Duration::from_secs(60);
/// What the first process of the machine writes after the output of a command.
const SEPARATOR: u8 = 30;
/// What of busybox is called by its own name.
const APPLETS: [&str; 20] = [
    "arp", "cat", "echo", "grep", "head", "insmod", "ip", "kill", "ls", "mount", "poweroff", "printf", "sed",
    "sh", "sleep", "stty", "tail", "test", "true", "vconfig",
];

/// What `scripts/zerocopy-images` has fetched.
#[derive(Clone, Debug)]
pub struct Images {
    directory: PathBuf,
}

impl Images {
    /// The images in the directory that `XFWD_VM` names. `None`: it names none.
    pub fn from_environment() -> Option<Self> {
        env::var_os("XFWD_VM").map(|directory| Self { directory: directory.into() })
    }

    /// A kernel by its role: `oldest`, `lts` or `newest`.
    ///
    /// # Errors
    ///
    /// [`Error::System`] if it has not been fetched.
    pub fn kernel(&self, name: &str) -> Result<Kernel> {
        let directory = self.directory.join("kernels").join(name);
        let release = read(&directory.join("release"))?;
        Ok(Kernel { release: String::from_utf8_lossy(&release).trim().to_owned(), directory })
    }
}

/// A kernel that machines can boot.
#[derive(Clone, Debug)]
pub struct Kernel {
    release: String,
    directory: PathBuf,
}

impl Kernel {
    /// Its release, such as `6.1.0-50-cloud-amd64`.
    pub fn release(&self) -> &str {
        &self.release
    }

    /// The modules of these drivers, in loading order. A driver that is built in has none.
    fn modules(&self, drivers: &[&str]) -> Result<Vec<String>> {
        let mut modules = Vec::new();
        for driver in drivers {
            let order = self.directory.join(format!("{driver}.order"));
            if order.exists() {
                let order = read(&order)?;
                modules.extend(String::from_utf8_lossy(&order).lines().map(str::to_owned));
            }
        }
        let mut seen = std::collections::BTreeSet::new();
        modules.retain(|module| seen.insert(module.clone()));
        Ok(modules)
    }
}

/// The network card of a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Card {
    /// virtio-net. Its driver has zero-copy if DMA addresses are the platform's to translate (`iommu_platform=on`).
    Virtio {
        /// Whether they are.
        iommu_platform: bool,
    },
    /// Intel 82576.
    Igb,
}

impl Card {
    fn drivers(self) -> &'static [&'static str] {
        match self {
            Self::Virtio { .. } => &["virtio_pci", "virtio_net"],
            Self::Igb => &["igb"],
        }
    }

    fn device(self) -> String {
        let identity = format!("netdev=cable,id=card,mac={MAC},romfile=");
        match self {
            // Two interrupts a queue pair, one for configuration, one for control.
            Self::Virtio { iommu_platform } => format!(
                "virtio-net-pci,{identity},mq=on,vectors={},disable-legacy=on,iommu_platform={}",
                2 * QUEUES + 2,
                if iommu_platform { "on" } else { "off" }
            ),
            Self::Igb => format!("igb,{identity}"),
        }
    }
}

impl fmt::Display for Card {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Virtio { iommu_platform: true } => "virtio-net (iommu_platform=on)",
            Self::Virtio { iommu_platform: false } => "virtio-net (iommu_platform=off)",
            Self::Igb => "igb (82576)",
        })
    }
}

/// What a machine is made of.
#[derive(Clone, Debug)]
pub struct Parts<'a> {
    /// What it boots.
    pub kernel: &'a Kernel,
    /// Its network card.
    pub card: Card,
    /// Programs of this machine to be found in its `/bin`.
    pub programs: &'a [&'a Path],
    /// Files: path and content.
    pub files: &'a [(&'a str, &'a str)],
}

/// What a command in a machine came to.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its exit status.
    pub status: i32,
    /// What it wrote, standard error too.
    pub output: String,
}

/// A running machine.
#[derive(Debug)]
pub struct Machine {
    // Ended before the directory with its sockets is removed.
    qemu: Child,
    control: UnixStream,
    monitor: UnixStream,
    /// Read from `control` and not yet returned.
    pending: Vec<u8>,
    directory: Scratch,
}

impl Machine {
    /// Boots a machine, whose cable ends at the interface `tap` that this makes in `namespace`, up. When this returns,
    /// `eth0` is up in the machine.
    ///
    /// # Errors
    ///
    /// If an image is missing, or the machine does not come up; what it wrote to its console is part of the error.
    pub fn boot(namespace: &Namespace, tap: &str, images: &Images, parts: &Parts<'_>) -> Result<Self> {
        let directory = Scratch::new()?;
        let initramfs = directory.path("initramfs");
        write(&initramfs, &file_system(images, parts, &directory.0)?)?;

        namespace.ip(["tuntap", "add", "dev", tap, "mode", "tap", "multi_queue"])?;
        namespace.up(tap)?;
        let chardev =
            |id: &str| format!("socket,id={id},path={},server=on,wait=off", directory.path(id).display());
        let mut command = Command::new(images.directory.join("qemu"));
        command
            .args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-machine", "q35"])
            .args(["-accel", "tcg,thread=multi", "-cpu", "Nehalem", "-smp", &QUEUES.to_string()])
            .args(["-m", &MEMORY_MIB.to_string()])
            .arg("-kernel")
            .arg(parts.kernel.directory.join("vmlinux"))
            .arg("-initrd")
            .arg(&initramfs)
            // No addresses of its own on the link, hence no router solicitations among the packets of a test.
            .args(["-append", "console=ttyS0 quiet panic=-1 mitigations=off nokaslr ipv6.disable_ipv6=1"])
            .args(["-chardev", &format!("file,id=console,path={}", directory.path("console").display())])
            .args(["-device", "isa-serial,chardev=console"])
            .args(["-chardev", &chardev("control"), "-device", "isa-serial,chardev=control"])
            .args(["-chardev", &chardev("monitor"), "-mon", "chardev=monitor,mode=readline"])
            .args(["-netdev", &netdev(tap), "-device", &parts.card.device()]);
        let qemu = namespace.spawn(&mut command)?;

        let connect = |id: &str| connect(&directory.path(id), &qemu);
        let (control, monitor) = (connect("control")?, connect("monitor")?);
        let mut machine = Self { qemu, control, monitor, pending: Vec::new(), directory };
        machine.answer("boot", BOOT_PATIENCE)?;
        Ok(machine)
    }

    /// Runs a command (one line, for `sh`) and waits for its end. Commands run in one shell, so variables, and
    /// jobs in the background, are kept from one to the next.
    ///
    /// # Errors
    ///
    /// If the machine does not answer within a minute, with what its console shows.
    pub fn run(&mut self, command: &str) -> Result<Answer> {
        debug_assert!(!command.contains('\n'), "a command is one line");
        let sent = self.control.write_all(format!("{command}\n").as_bytes());
        sent.map_err(|source| self.failed("write", source))?;
        self.answer(command, COMMAND_PATIENCE)
    }

    /// Repeats a command until it succeeds.
    ///
    /// # Errors
    ///
    /// If it does not within `patience`, with its last output; or as [`run`](Self::run).
    pub fn wait_until(&mut self, command: &str, patience: Duration) -> Result<Answer> {
        let deadline = Instant::now() + patience;
        loop {
            let answer = self.run(command)?;
            if answer.status == 0 {
                return Ok(answer);
            }
            if Instant::now() >= deadline {
                let what =
                    format!("make `{command}` succeed within {patience:?}; its output: {}", answer.output);
                return Err(self.machine_error(what));
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Pulls the cable, or plugs it in.
    ///
    /// # Errors
    ///
    /// If QEMU cannot be told.
    pub fn set_cable(&mut self, plugged: bool) -> Result<()> {
        let state = if plugged { "on" } else { "off" };
        let sent = self.monitor.write_all(format!("set_link card {state}\n").as_bytes());
        sent.map_err(|source| self.failed("write", source))
    }

    /// What its kernel has written to the console.
    pub fn console(&self) -> String {
        let bytes = fs::read(self.directory.path("console")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Reads up to the next separator.
    fn answer(&mut self, command: &str, patience: Duration) -> Result<Answer> {
        let deadline = Instant::now() + patience;
        let mut buffer = [0; 4096];
        loop {
            if let Some((output, status, rest)) = split(&self.pending) {
                let answer = Answer { status, output: String::from_utf8_lossy(output).into_owned() };
                self.pending = rest.to_vec();
                return Ok(answer);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(self.machine_error(format!("answer `{command}` within {patience:?}")));
            }
            let read =
                self.control.set_read_timeout(Some(left)).and_then(|()| self.control.read(&mut buffer));
            match read {
                Ok(0) => return Err(self.machine_error(format!("live to answer `{command}`"))),
                Ok(count) => self.pending.extend_from_slice(&buffer[..count]),
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                Err(error) => return Err(self.failed("read", error)),
            }
        }
    }

    fn machine_error(&self, what: String) -> Error {
        let so_far = String::from_utf8_lossy(&self.pending).into_owned();
        Error::Machine { what, so_far, console: self.console(), qemu: self.qemu.stderr() }
    }

    fn failed(&self, call: &'static str, source: io::Error) -> Error {
        Error::System { call, subject: "the serial line of a machine".to_owned(), source }
    }
}

/// `vhost` is off since it would need a module of this machine's kernel.
fn netdev(tap: &str) -> String {
    format!("tap,id=cable,ifname={tap},script=no,downscript=no,vhost=off,queues={QUEUES}")
}

/// Output, exit status, and what comes after, once a whole answer is there.
fn split(pending: &[u8]) -> Option<(&[u8], i32, &[u8])> {
    let at = pending.iter().position(|byte| *byte == SEPARATOR)?;
    let end = at + pending[at..].iter().position(|byte| *byte == b'\n')?;
    let status = std::str::from_utf8(&pending[at + 1..end]).ok()?.parse().ok()?;
    Some((&pending[..at], status, &pending[end + 1..]))
}

fn file_system(images: &Images, parts: &Parts<'_>, scratch: &Path) -> Result<Vec<u8>> {
    let mut archive = Initramfs::new();
    for directory in ["/proc", "/sys", "/dev", "/tmp", "/modules"] {
        archive.directory(directory);
    }
    archive.executable("/init", include_bytes!("init"));
    archive.executable("/bin/busybox", &read(&images.directory.join("busybox"))?);
    for applet in APPLETS {
        archive.link(&format!("/bin/{applet}"), "busybox");
    }
    let modules = parts.kernel.modules(&[parts.card.drivers(), &["8021q"]].concat())?;
    for module in &modules {
        let file = format!("{module}.ko");
        archive.file(&format!("/modules/{file}"), &read(&parts.kernel.directory.join(file))?);
    }
    archive.file("/modules/order", (modules.join("\n") + "\n").as_bytes());
    for program in parts.programs {
        archive.program(program, scratch).map_err(|source| Error::System {
            call: "read",
            subject: program.display().to_string(),
            source,
        })?;
    }
    for (path, content) in parts.files {
        archive.file(path, content.as_bytes());
    }
    Ok(archive.finish())
}

/// QEMU makes its sockets as it starts.
fn connect(path: &Path, qemu: &Child) -> Result<UnixStream> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        match UnixStream::connect(path) {
            Ok(stream) => return Ok(stream),
            Err(_) if Instant::now() < deadline => thread::sleep(Duration::from_millis(10)),
            Err(source) => {
                let subject = format!("{}; QEMU says: {}", path.display(), qemu.stderr());
                return Err(Error::System { call: "connect", subject, source });
            }
        }
    }
}

/// A directory that is removed when dropped.
#[derive(Debug)]
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Self> {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let counter = COUNTER.fetch_add(1, Ordering::Relaxed);
        let path = env::temp_dir().join(format!("xfwd-vm-{}-{counter}", process::id()));
        match fs::create_dir(&path) {
            Ok(()) => Ok(Self(path)),
            Err(source) => Err(Error::System { call: "mkdir", subject: path.display().to_string(), source }),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(|source| Error::System {
        call: "read",
        subject: path.display().to_string(),
        source,
    })
}

fn write(path: &Path, content: &[u8]) -> Result<()> {
    fs::write(path, content).map_err(|source| Error::System {
        call: "write",
        subject: path.display().to_string(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_end_at_the_separator() {
        assert_eq!(split(b"some output\n\x1e0\nnext"), Some((&b"some output\n"[..], 0, &b"next"[..])));
        assert_eq!(split(b"\x1e127\n"), Some((&b""[..], 127, &b""[..])));
        assert_eq!(split(b"output\x1e12"), None, "the number may go on");
        assert_eq!(split(b"output"), None);
    }
}
