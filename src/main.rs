//! The program `proxygrad`.

mod cli;

fn main() -> std::process::ExitCode {
    cli::run()
}
