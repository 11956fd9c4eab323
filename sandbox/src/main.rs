fn main() -> std::process::ExitCode {
    sandbox::main()
}
