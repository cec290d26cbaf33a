//! An external command, in a process group of its own. It runs with the rights and in the environment of this process.

use std::{
    fmt::Write as _,
    future::{pending, poll_fn},
    io::pipe,
    pin::pin,
    process::{ExitStatus, Stdio},
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use tokio::{
    io::AsyncReadExt as _,
    net::unix::pipe::Receiver,
    process::{Child, Command},
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{timeout, timeout_at},
};

use super::{Answer, Failure};
use crate::health::Target;

/// Commands that run at the same time. More would only wait for each other: each is a process.
const AT_ONCE: u32 = 256;

/// How long killed commands are waited for at the end. They are gone at once, but for one that hangs in the kernel.
const PATIENCE_AT_THE_END: Duration = Duration::from_secs(1);

/// Of a command's first line.
const LONGEST_LINE_BYTES: usize = 200;

/// All commands that run.
#[derive(Clone)]
pub(in crate::health) struct Commands(Arc<Semaphore>);

impl Default for Commands {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(AT_ONCE as usize)))
    }
}

impl Commands {
    /// Waits until none runs any more, though not for ever.
    pub(in crate::health) async fn all_gone(&self) {
        if timeout(PATIENCE_AT_THE_END, self.0.acquire_many(AT_ONCE)).await.is_err() {
            tracing::warn!("a command of a health check was killed, but is still there");
        }
    }
}

/// Runs a command.
pub(in crate::health) struct Run {
    program: String,
    arguments: Vec<String>,
    environment: [(&'static str, String); 3],
    patience: Duration,
    commands: Commands,
}

impl Run {
    /// # Errors
    ///
    /// That there is no command, or that it cannot be handed to the kernel.
    pub(super) fn new(target: &Target, commands: Commands) -> Result<Self, String> {
        let (program, arguments) =
            target.check.command.split_first().ok_or_else(|| "no command is given".to_owned())?;
        if program.is_empty() {
            return Err("the command has no name".to_owned());
        }
        Ok(Self {
            program: program.clone(),
            arguments: arguments.to_vec(),
            environment: [
                ("XFWD_SERVICE", target.service.clone()),
                ("XFWD_BACKEND", target.address.to_string()),
                ("XFWD_PORT", target.endpoint().port().to_string()),
            ],
            patience: target.check.timeout,
            commands,
        })
    }

    /// Its own timeout is what counts, from the moment the command starts: it may have to wait for others.
    pub(super) async fn run(&self, _deadline: Instant) -> Answer {
        let Ok(permit) = Arc::clone(&self.commands.0).acquire_owned().await else {
            return Err("no command is started any more".to_owned());
        };
        let deadline = Instant::now() + self.patience;
        let (mut running, output) = self
            .spawn(permit)
            .map_err(|error| format!("cannot run `{}`: {}", self.program, Failure::from(error)))?;
        let mut said = FirstLine::default();
        let ended = timeout_at(deadline.into(), running.follow(output, &mut said)).await;
        match ended {
            Ok(Ok(status)) if status.success() => Ok(said.after("exit status 0")),
            Ok(Ok(status)) => Err(said.after(&status.to_string().replace(": ", " "))),
            Ok(Err(error)) => Err(format!("waiting for `{}`: {}", self.program, Failure::from(error))),
            Err(_) => Err(said.after("timeout: killed")),
        }
    }

    fn spawn(&self, permit: OwnedSemaphorePermit) -> std::io::Result<(Running, Receiver)> {
        let (reader, writer) = pipe()?;
        let child = Command::new(&self.program)
            .args(&self.arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(writer.try_clone()?)
            .stderr(writer)
            .process_group(0)
            .spawn()?;
        let running = Running { inner: Some((child, permit)) };
        Ok((running, Receiver::from_owned_fd(reader.into())?))
    }
}

/// A command under way. Dropped before its end, its whole process group is killed, and reaped in the background.
struct Running {
    inner: Option<(Child, OwnedSemaphorePermit)>,
}

impl Running {
    /// Waits for the end. What is written is taken all the time, as a full pipe would hold the command up; whoever keeps
    /// it open beyond the command's end is not waited for.
    async fn follow(&mut self, mut output: Receiver, said: &mut FirstLine) -> std::io::Result<ExitStatus> {
        let Some((child, _)) = &mut self.inner else {
            return Err(std::io::ErrorKind::NotFound.into());
        };
        let status = {
            let mut wait = pin!(child.wait());
            let mut drain = pin!(async {
                let mut buffer = [0; 1024];
                while let Ok(read @ 1..) = output.read(&mut buffer).await {
                    said.take(&buffer[..read]);
                }
                pending::<()>().await;
            });
            poll_fn(|context| {
                let ended = wait.as_mut().poll(context);
                let _: Poll<()> = drain.as_mut().poll(context);
                ended
            })
            .await
        };
        let mut buffer = [0; LONGEST_LINE_BYTES];
        while !said.whole
            && let Ok(read @ 1..) = output.try_read(&mut buffer)
        {
            said.take(&buffer[..read]);
        }
        status
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let Some((mut child, permit)) = self.inner.take() else {
            return;
        };
        // No id: it has ended and was reaped, so its number may belong to others.
        let Some(pid) = child.id().and_then(|id| i32::try_from(id).ok()) else {
            return;
        };
        // ESRCH cannot be: what is not reaped is still there.
        let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move {
                let _ = child.wait().await;
                drop(permit);
            });
        }
    }
}

/// The first line with something on it, cut to a reasonable length.
#[derive(Default)]
struct FirstLine {
    bytes: Vec<u8>,
    whole: bool,
}

impl FirstLine {
    fn take(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if self.whole {
                return;
            }
            match byte {
                b'\n' => self.whole = !self.bytes.trim_ascii().is_empty(),
                _ => self.bytes.push(byte),
            }
            self.whole |= self.bytes.len() >= LONGEST_LINE_BYTES;
        }
    }

    /// `what`, and the line behind it if there is one.
    fn after(&self, what: &str) -> String {
        let mut text = what.to_owned();
        let line = String::from_utf8_lossy(self.bytes.trim_ascii());
        if !line.is_empty() {
            let printable =
                line.chars().map(|character| if character.is_control() { ' ' } else { character });
            // Writing to a string cannot fail.
            let _ = write!(text, ": {}", printable.collect::<String>());
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(writes: &[&str]) -> String {
        let mut line = FirstLine::default();
        writes.iter().for_each(|write| line.take(write.as_bytes()));
        line.after("exit status 1")
    }

    #[test]
    fn first_line_is_kept_whatever_the_writes() {
        assert_eq!(line(&["no di", "sk\nmore", "\n"]), "exit status 1: no disk");
        assert_eq!(line(&["\n \n", "full\r\n"]), "exit status 1: full");
        assert_eq!(line(&["no newline"]), "exit status 1: no newline");
        assert_eq!(line(&[]), "exit status 1");
    }

    #[test]
    fn long_line_is_cut_and_control_characters_do_not_pass() {
        assert_eq!(line(&[&"x".repeat(5000)]).len(), "exit status 1: ".len() + LONGEST_LINE_BYTES);
        assert_eq!(line(&["\x1b[2Jred"]), "exit status 1:  [2Jred");
    }
}
