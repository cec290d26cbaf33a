//! The `xfwd` command: one file a subcommand.
