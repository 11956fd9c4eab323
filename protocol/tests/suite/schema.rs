//! The checked-in schemas are those of the code. `make schema` regenerates them.

use std::path::Path;

#[test]
fn checked_in_schemas_are_fresh() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("schema");
    let write = std::env::var_os("WRITE_SCHEMA").is_some();
    for (name, schema) in protocol::schema::all() {
        let path = directory.join(name);
        let fresh = serde_json::to_string_pretty(&schema).unwrap() + "\n";
        if write {
            std::fs::write(&path, &fresh).unwrap();
        }
        let found = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            found == fresh,
            "{} is stale: run `make schema` and commit it",
            path.display()
        );
    }
}
