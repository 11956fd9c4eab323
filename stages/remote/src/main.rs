fn main() -> std::process::ExitCode {
    remote::cli::main()
}
