//! The `riverlog` program; everything is in the library.

fn main() -> std::process::ExitCode {
    riverlog_server::cli::main()
}
