//! Processes inside a namespace.

use std::{
    io::{self, Read},
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::{Command, ExitStatus, Stdio},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sched::CloneFlags,
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    error::{Error, Result},
    iproute::line,
    lab::Namespace,
};

/// A process inside a namespace; dropping it kills the process.
#[derive(Debug)]
pub struct Child {
    child: std::process::Child,
    command: String,
    output: Arc<Output>,
}

/// How a process ended, and what it wrote.
#[derive(Clone, Debug)]
pub struct ExitReport {
    /// How it ended.
    pub status: ExitStatus,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

/// What a process has written so far; reader threads add to it.
#[derive(Debug, Default)]
struct Output {
    written: Mutex<Written>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Written {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    /// Streams that have reached their end.
    ended: usize,
}

impl Output {
    fn lock(&self) -> MutexGuard<'_, Written> {
        // A reader thread that panicked has left whole bytes behind: the text is still good to show.
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Child {
    /// Starts `command` in `namespace` with captured output.
    pub(crate) fn spawn(namespace: &Namespace, command: &mut Command) -> Result<Self> {
        let name = line(command);
        enter_at_exec(namespace, command);
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|source| Error::Spawn {
                command: name.clone(),
                source,
            })?;
        let output = Arc::new(Output::default());
        if let Some(stream) = child.stdout.take() {
            read_in_background(stream, Arc::clone(&output), |written| &mut written.stdout);
        }
        if let Some(stream) = child.stderr.take() {
            read_in_background(stream, Arc::clone(&output), |written| &mut written.stderr);
        }
        Ok(Self {
            child,
            command: name,
            output,
        })
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has written to standard output so far.
    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.output.lock().stdout).into_owned()
    }

    /// What it has written to standard error so far.
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.output.lock().stderr).into_owned()
    }

    /// Waits until `text` appears in its standard output or standard error.
    ///
    /// # Errors
    ///
    /// [`Error::Timeout`], with all output so far, if it does not appear in time or the process ends before.
    pub fn wait_for(&self, text: &str, timeout: Duration) -> Result<()> {
        let deadline = Instant::now() + timeout;
        let contains = |bytes: &[u8]| bytes.windows(text.len()).any(|window| window == text.as_bytes());
        let mut written = self.output.lock();
        loop {
            if contains(&written.stdout) || contains(&written.stderr) {
                return Ok(());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || written.ended == 2 {
                drop(written);
                return Err(self.timeout(format!("say {text:?}"), timeout));
            }
            let (guard, _) = self
                .output
                .changed
                .wait_timeout(written, left)
                .unwrap_or_else(PoisonError::into_inner);
            written = guard;
        }
    }

    /// Waits until it ends by itself.
    ///
    /// # Errors
    ///
    /// [`Error::Timeout`] if it does not; it is left running.
    pub fn wait(&mut self, timeout: Duration) -> Result<ExitReport> {
        let deadline = Instant::now() + timeout;
        loop {
            let status = self.child.try_wait().map_err(|source| Error::System {
                call: "waitpid",
                subject: self.command.clone(),
                source,
            })?;
            if let Some(status) = status {
                self.wait_for_streams();
                return Ok(ExitReport {
                    status,
                    stdout: self.stdout(),
                    stderr: self.stderr(),
                });
            }
            if Instant::now() >= deadline {
                return Err(self.timeout("end".to_owned(), timeout));
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Sends a signal.
    ///
    /// # Errors
    ///
    /// [`Error::System`] if the process has ended and was waited for.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(self.child.id().cast_signed());
        kill(pid, signal).map_err(|error| Error::System {
            call: "kill",
            subject: self.command.clone(),
            source: error.into(),
        })
    }

    /// Asks it to end (SIGTERM) and waits until it has.
    ///
    /// # Errors
    ///
    /// [`Error::Timeout`] if it does not end in time; it is left running.
    pub fn stop(&mut self, timeout: Duration) -> Result<ExitReport> {
        self.signal(Signal::SIGTERM)?;
        self.wait(timeout)
    }

    /// The process has ended: its streams end as soon as nobody else holds them, which takes no time unless it has left
    /// a process of its own behind.
    fn wait_for_streams(&self) {
        let written = self.output.lock();
        let _ = self
            .output
            .changed
            .wait_timeout_while(written, Duration::from_millis(200), |w| w.ended < 2);
    }

    fn timeout(&self, what: String, timeout: Duration) -> Error {
        let (stdout, stderr) = (self.stdout(), self.stderr());
        Error::Timeout {
            command: self.command.clone(),
            what,
            timeout,
            stdout,
            stderr,
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Makes `command` enter the namespace between fork and exec.
pub(crate) fn enter_at_exec(namespace: &Namespace, command: &mut Command) {
    let namespace = namespace.clone();
    let enter =
        move || nix::sched::setns(namespace.handle(), CloneFlags::CLONE_NEWNET).map_err(io::Error::from);
    // SAFETY: between fork and exec only async-signal-safe calls are allowed; this is one system call on a file
    // descriptor that the closure keeps open, and it allocates nothing.
    unsafe { command.pre_exec(enter) };
}

fn read_in_background(
    mut stream: impl Read + Send + 'static,
    output: Arc<Output>,
    side: fn(&mut Written) -> &mut Vec<u8>,
) {
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        loop {
            let count = match stream.read(&mut buffer) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => 0,
            };
            let mut written = output.lock();
            if count == 0 {
                written.ended += 1;
            }
            side(&mut written).extend_from_slice(&buffer[..count]);
            output.changed.notify_all();
            if count == 0 {
                return;
            }
        }
    });
}

/// Where a command of this crate (`xfwd-lab-http`, `xfwd-trafficgen`) lies, for tests of any crate of the workspace:
/// beside the test's own executable, or one directory above it.
///
/// # Errors
///
/// [`Error::ToolNotBuilt`] if it is not there.
pub fn tool(name: &str) -> Result<PathBuf> {
    let executable = std::env::current_exe().map_err(|source| Error::System {
        call: "readlink",
        subject: "/proc/self/exe".to_owned(),
        source,
    })?;
    let directories = executable.ancestors().skip(1).take(2);
    let mut found = directories.map(|directory| directory.join(name));
    found
        .find(|path| path.is_file())
        .ok_or_else(|| Error::ToolNotBuilt {
            name: name.to_owned(),
            directory: executable.parent().map(PathBuf::from).unwrap_or_default(),
        })
}
