fn main() -> std::process::ExitCode {
    protocol::run_stage::<config_emit::ConfigEmit>()
}
