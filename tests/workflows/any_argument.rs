//! Workflows of any bytes, set to anything: none panics, and what a caller did wrong is called that.

use crate::common::any_argument::Watch;
use sagittal::workflow::{
    Folders, Graph, Input, LocalTime, ModelFolders, Node, Options, Workflow, class, classes,
};
use serde_json::{Value as Json, json};

const TEXTS: [&str; 12] =
    ["", ".", "=", ".=", "1.seed=", "a.b.c=d", "3.steps=1e999", "\0", "語.語=語", "%", "..", "[1, 2"];

#[test]
fn workflows_of_any_bytes_set_to_anything() {
    let mut watch = Watch::default();
    let folder = tempfile::tempdir().expect("a folder");
    let folders = Folders::new(folder.path(), folder.path(), folder.path().join("out"));
    let values = [
        json!(null),
        json!(u64::MAX),
        json!(-1),
        json!(1e308),
        json!(""),
        json!([]),
        json!(["1", u64::MAX]),
        json!({}),
    ];
    for class in classes() {
        for value in &values {
            // A node that reads itself, and one with a value for every input.
            let inputs: serde_json::Map<String, Json> =
                class.inputs.iter().map(|slot| (slot.name.to_owned(), value.clone())).collect();
            let api = json!({"1": {"class_type": class.name, "inputs": inputs}});
            let ui = json!({"nodes": [{"id": value, "type": class.name, "widgets_values": value, "inputs": value}],
                "links": [value, [1, 2, 3], value]});
            for source in [api, ui, json!({class.name: value}), json!({"nodes": value, "links": value})] {
                let text = source.to_string();
                let Some(mut workflow) = watch.tries(&text, || Workflow::parse("\0", text.as_bytes())) else {
                    continue;
                };
                let now = LocalTime {
                    year: u32::MAX,
                    month: 0,
                    day: u32::MAX,
                    hour: 99,
                    minute: 99,
                    second: u32::MAX,
                };
                let options = Options { now, ..Options::default() };
                watch.tries(&text, || workflow.check(&folders, &options).map(|ready| ready.samplers()));
                for slot in class.inputs {
                    for value in ["", "-1", "18446744073709551616", "nan", "true", "語"] {
                        watch.tries(&text, || workflow.set(&format!("1.{}={value}", slot.name)));
                    }
                }
                for text in TEXTS {
                    watch.tries(text, || workflow.set(text));
                }
                watch.runs(&text, || (workflow.graph().to_api().to_string(), workflow.file().to_owned()));
            }
        }
        watch.runs(class.name, || class.inputs.iter().map(|slot| slot.default()).collect::<Vec<_>>());
        watch.runs(class.name, || (class.widgets().count(), class.input("").is_some()));
    }
    for bytes in [&[][..], &[0; 9], b"null", b"[", b"{\"1\": 2}", b"\x89PNG\r\n\x1a\n", &[255; 100]] {
        watch.tries("bytes", || Workflow::parse("", bytes));
    }
    let mut graph = Graph::default();
    for text in TEXTS {
        let mut node = Node::new(text, text);
        node.set(text, Input::Link { node: text.into(), output: usize::MAX });
        watch.runs(text, || (node.to_string(), node.input(text).is_some(), class(text).is_some()));
        watch.runs(text, || (graph.add(node.clone()), graph.add(node), graph.find(text).is_some()));
        watch.tries(text, || ModelFolders::below(text.as_ref()).add_extra(text.as_ref()));
        watch.tries(text, || Workflow::open(text));
    }
    watch.runs("links to nowhere", || graph.to_api().to_string());
    assert!(watch.refused > 1000, "{} refused", watch.refused);
    watch.failures.finish();
}
