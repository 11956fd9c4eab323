fn main() -> std::process::ExitCode {
    protocol::run_stage::<tunnel::Tunnel>()
}
