//! End-to-end tests with real programs. Select tests by path: `cargo test --test suite tunnel::ghosts`.

mod config_emit {
    mod follow;
    mod formats;
    mod live;
    mod once;
    mod preflight;
    mod references;
}
mod driver {
    mod compile;
    mod devcluster;
    mod doctor;
    mod explain;
    mod gc;
    mod kills;
    mod migrate;
    mod minikube_example;
    mod pipeline;
    mod restarts;
    mod sandbox;
    mod schema;
    mod status;
    mod stock_files;
    mod stranger;
    mod up;
}
mod gateway {
    mod errors;
    mod real;
}
mod plugin {
    mod cleanup;
    mod host;
    mod in_a_file;
}
mod protocol {
    mod codes;
    mod conformance;
    mod errors;
    mod examples;
    mod paths;
    mod runtime;
}
mod tunnel {
    mod arrival;
    mod errors;
    mod forwards;
    mod ghosts;
    mod guard;
    mod lifecycle;
    mod partition;
    mod preflight;
    mod server;
    mod soak;
    mod ssh;
}
