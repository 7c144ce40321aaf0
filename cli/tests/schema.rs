//! The output of the program with `--json`, validated against docs/events.schema.json.

use std::sync::OnceLock;

use serde_json::Value;

pub const SCHEMA: &str = include_str!("../../docs/events.schema.json");

/// The events of an output, each of which the schema knows.
pub fn events(stdout: &[u8]) -> Vec<Value> {
    static VALIDATOR: OnceLock<jsonschema::Validator> = OnceLock::new();
    let validator = VALIDATOR.get_or_init(|| {
        jsonschema::validator_for(&serde_json::from_str(SCHEMA).expect("JSON")).expect("a schema")
    });
    let text = std::str::from_utf8(stdout).expect("UTF-8");
    let event = |line: &str| {
        let event: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("no JSON: {line}: {e}"));
        assert!(validator.is_valid(&event), "docs/events.schema.json has no such event: {event:#}");
        event
    };
    text.lines().map(event).collect()
}

/// The one event of a name.
pub fn event(stdout: &[u8], name: &str) -> Value {
    let mut found = events(stdout);
    found.retain(|event| event["event"] == name);
    assert_eq!(found.len(), 1, "one {name} in {found:?}");
    found.remove(0)
}
