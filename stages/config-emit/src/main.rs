fn main() -> std::process::ExitCode {
    config_emit::main()
}
