//! The `xfwd` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    xfwd::cli::main()
}
