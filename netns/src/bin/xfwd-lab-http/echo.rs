//! TCP echo: answers every line with the server's name and the line.

use std::{
    io::{self, BufRead as _, BufReader, Write as _},
    net::{TcpListener, TcpStream},
    process::ExitCode,
    thread,
};

use anyhow::{Context as _, Result};
use clap::Args;

use crate::Server;

#[derive(Args)]
pub struct Serve {
    #[command(flatten)]
    server: Server,
}

impl Serve {
    pub fn run(&self) -> Result<ExitCode> {
        let mut threads = Vec::new();
        for address in &self.server.listen {
            let listener =
                TcpListener::bind(address).with_context(|| format!("cannot listen on {address}"))?;
            let name = self.server.name.clone();
            threads.push(thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let name = name.clone();
                    // Ends when the client does, however it does.
                    thread::spawn(move || answer(&stream, &name));
                }
            }));
            println!("listening on {address}");
        }
        for thread in threads {
            let _ = thread.join();
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn answer(stream: &TcpStream, name: &str) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    let mut writer = stream;
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line)? > 0 {
        writer.write_all(&[name.as_bytes(), b" ", &line].concat())?;
        line.clear();
    }
    Ok(())
}
