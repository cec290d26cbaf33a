//! The thread that takes entries from the queue and the file to the kernel, and out again when their time is over.

use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

use super::held::{DenyError, Held};
use super::list::{DenyList, Shared};
use super::{DenyTable, file};

/// Within this time an entry that was queued is in the kernel, on a machine that gives the thread its turn.
pub const PATIENCE: Duration = Duration::from_millis(10);
/// How often the queue is looked at. The hot path cannot wake the thread: that would be a system call.
const ROUND_MILLISECONDS: u8 = 3;
/// Entries taken at once before the clock and the file are looked at again.
const ENTRIES_A_ROUND: usize = 1_024;
/// Errors that are told at once; the others are counted.
const ERRORS_TOLD: usize = 3;

/// Why the deny list could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartDenyError {
    /// The file cannot be read.
    #[error("cannot read the deny list {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file has a wrong line.
    #[error("the deny list {}, {source}", path.display())]
    Wrong {
        /// The file.
        path: PathBuf,
        /// The line.
        source: file::BadLine,
    },
    /// An entry of the file cannot be added.
    #[error("the deny list {}: {source}", path.display())]
    Add {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Box<DenyError>,
    },
    /// The file cannot be watched.
    #[error("cannot watch the folder of the deny list {}: {source}", path.display())]
    Watch {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// No thread.
    #[error("cannot start the thread of the deny list: {0}")]
    Thread(#[source] io::Error),
}

/// The running thread; dropping it ends it. What is denied stays so until the XDP program goes.
pub struct DenyThread {
    list: DenyList,
    stop: Arc<AtomicBool>,
    handle: Option<JoinHandle<()>>,
}

impl DenyThread {
    /// Starts with what `path` holds, when there is one; the tables are those of every XDP program.
    ///
    /// # Errors
    ///
    /// [`StartDenyError`] when the file cannot be used as it is, or the system refuses.
    pub fn start(tables: Vec<Box<dyn DenyTable>>, path: Option<&Path>) -> Result<Self, StartDenyError> {
        let list = DenyList::new(Held::new(tables));
        // Watched before it is read: a change in between is seen.
        let watch = path.map(Watch::start).transpose()?;
        if let Some(path) = path {
            let lines = read(path)?;
            let errors = list.shared.held().replace_file(&lines, Instant::now());
            if let Some(source) = errors.into_iter().next() {
                return Err(StartDenyError::Add { path: path.to_owned(), source: Box::new(source) });
            }
        }
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, shared) = (Arc::clone(&stop), Arc::clone(&list.shared));
        let handle = std::thread::Builder::new()
            .name("xfwd-deny".to_owned())
            .spawn(move || {
                while !stopped.load(Relaxed) {
                    round(&shared, watch.as_ref());
                }
            })
            .map_err(StartDenyError::Thread)?;
        Ok(Self { list, stop, handle: Some(handle) })
    }

    /// The handle for everyone who adds entries.
    pub fn list(&self) -> &DenyList {
        &self.list
    }
}

impl DenyThread {
    /// Ends the thread: no entry comes in or goes out by itself any more. What was counted can still be read.
    pub fn stop(&mut self) {
        self.stop.store(true, Relaxed);
        if let Some(handle) = self.handle.take()
            && handle.join().is_err()
        {
            tracing::error!("the thread of the deny list panicked");
        }
    }
}

impl Drop for DenyThread {
    fn drop(&mut self) {
        self.stop();
    }
}

fn round(shared: &Shared, watch: Option<&Watch>) {
    if let Some(watch) = watch {
        if watch.wait() {
            reread(shared, &watch.path);
        }
    } else {
        std::thread::sleep(Duration::from_millis(ROUND_MILLISECONDS.into()));
    }
    let mut held = shared.held();
    let mut errors = Vec::new();
    for _ in 0..ENTRIES_A_ROUND {
        let Some((entry, until)) = shared.queue.pop() else { break };
        errors.extend(held.add(entry, until).err());
    }
    errors.extend(held.expire(Instant::now()));
    drop(held);
    tell(&errors);
}

/// A file that is wrong changes nothing.
fn reread(shared: &Shared, path: &Path) {
    match read(path) {
        Ok(lines) => tell(&shared.held().replace_file(&lines, Instant::now())),
        Err(error) => {
            shared.held().bad_file();
            tracing::error!("{error}; what it held before stays denied");
        }
    }
}

fn tell(errors: &[DenyError]) {
    for error in errors.iter().take(ERRORS_TOLD) {
        tracing::error!("deny list: {error}");
    }
    if let Some(more) = errors.len().checked_sub(ERRORS_TOLD).filter(|more| *more > 0) {
        tracing::error!("deny list: and {more} more");
    }
}

fn read(path: &Path) -> Result<Vec<file::Line>, StartDenyError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| StartDenyError::Unreadable { path: path.to_owned(), source })?;
    file::parse(&text).map_err(|source| StartDenyError::Wrong { path: path.to_owned(), source })
}

/// Watches the folder of a file: editors replace a file by another of its name.
struct Watch {
    path: PathBuf,
    inotify: Inotify,
}

impl Watch {
    fn start(path: &Path) -> Result<Self, StartDenyError> {
        let error =
            |source: nix::Error| StartDenyError::Watch { path: path.to_owned(), source: source.into() };
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).map_err(error)?;
        let events = AddWatchFlags::IN_CLOSE_WRITE | AddWatchFlags::IN_MOVED_TO;
        inotify.add_watch(folder, events).map_err(error)?;
        Ok(Self { path: path.to_owned(), inotify })
    }

    /// Waits for a round, or less; whether the file was written.
    fn wait(&self) -> bool {
        let mut fds = [PollFd::new(self.inotify.as_fd(), PollFlags::POLLIN)];
        if poll(&mut fds, PollTimeout::from(ROUND_MILLISECONDS)).is_ok_and(|ready| ready == 0) {
            return false;
        }
        let events = self.inotify.read_events().unwrap_or_default();
        // An event without a name tells that others were lost.
        events
            .iter()
            .any(|event| event.name.as_deref().is_none_or(|name| Some(name) == self.path.file_name()))
    }
}
