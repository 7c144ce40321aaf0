//! Values of widgets in the UI format: a list by place, or an object by name.

use std::borrow::Cow;

use serde_json::Value as Json;

use super::flatten::UiNode;
use crate::workflow::dynamic_prompt::dynamic;
use crate::workflow::graph::Input;
use crate::workflow::json::{id, short};
use crate::workflow::spec::Class;
use crate::{Error, ErrorKind, Result};

/// The values of a node's widgets by name. Those that an older ComfyUI did not have are left to
/// the catalogue's defaults.
pub(super) fn widgets(class: &Class, shown: &UiNode) -> Result<Vec<(String, Input)>> {
    let mut inputs = Vec::new();
    let listed = shown.listed();
    let mut listed = listed.iter().peekable();
    let named = [shown.named.as_ref(), shown.widgets.as_object().filter(|_| listed.len() == 0)];
    let by_name = named.into_iter().flatten().next();
    for input in class.widgets() {
        let own = match by_name {
            Some(values) => values.get(input.name),
            None => {
                let value = listed.next();
                // A seed is followed by what happens to it after a run.
                if input.is_seed() && listed.peek().is_some_and(|v| is_control(v)) {
                    listed.next();
                }
                value
            }
        };
        let value = match shown.promoted.get(input.name).or(own) {
            None | Some(Json::Null) => input.default(),
            Some(Json::String(s)) if input.is_prompt() => Some(dynamic(s).into()),
            Some(value @ (Json::Object(_) | Json::Array(_))) => {
                return Err(Error::new(ErrorKind::File, "a widget's value is no value")
                    .at(format!("node {} ({}), {}", shown.id, shown.class, input.name))
                    .found(short(value)));
            }
            Some(value) => Some(value.clone()),
        };
        inputs.extend(value.map(|v| (input.name.to_owned(), Input::Value(v))));
    }
    Ok(inputs)
}

/// What a frontend does with a seed after each run; the oldest had a switch for it.
fn is_control(value: &Json) -> bool {
    match value {
        Json::String(s) => matches!(s.as_str(), "fixed" | "increment" | "decrement" | "randomize"),
        value => value.is_boolean(),
    }
}

impl UiNode {
    /// The values of its widgets.
    pub(super) fn listed(&self) -> Cow<'_, [Json]> {
        listed(&self.widgets)
    }
}

/// `widgets_values` as a list, which some files write as an object with the keys 0, 1, 2, …; empty if the
/// values have names.
fn listed(widgets: &Json) -> Cow<'_, [Json]> {
    match widgets {
        Json::Array(list) => Cow::Borrowed(list),
        Json::Object(object) => {
            let value = |at: usize| object.get(&at.to_string()).cloned();
            Cow::Owned((0..object.len()).map_while(value).collect())
        }
        _ => Cow::Borrowed(&[]),
    }
}

/// Changes the value of a widget of node `id` in the UI format's JSON, so that a picture's `workflow`
/// is what was run. False where the node is not on the top level or has no such widget there.
pub(crate) fn set_widget(json: &mut Json, node_id: &str, class: &Class, name: &str, value: &Json) -> bool {
    let nodes = json.get_mut("nodes").and_then(Json::as_array_mut);
    let wanted = |n: &&mut Json| n.get("id").and_then(id).as_deref() == Some(node_id);
    let Some(node) = nodes.and_then(|nodes| nodes.iter_mut().find(wanted)) else { return false };
    let linked = |i: &Json| {
        i.get("name").and_then(Json::as_str) == Some(name) && i.get("link").is_some_and(|l| !l.is_null())
    };
    if node.get("inputs").and_then(Json::as_array).is_some_and(|inputs| inputs.iter().any(linked)) {
        return false;
    }
    if let Some(named) = node.get_mut("widgets_values_named").and_then(Json::as_object_mut) {
        named.insert(name.to_owned(), value.clone());
    }
    let number = widget_number(class, name, &node.get("widgets_values").map(listed).unwrap_or_default());
    match (node.get_mut("widgets_values"), number) {
        (Some(Json::Object(values)), number) => {
            let key = match number {
                Some(number) if values.contains_key(&number.to_string()) => number.to_string(),
                _ => name.to_owned(),
            };
            values.insert(key, value.clone());
            true
        }
        (Some(Json::Array(values)), Some(number)) => {
            values.get_mut(number).map(|old| *old = value.clone()).is_some()
        }
        _ => false,
    }
}

/// The place of a widget in `widgets_values`.
fn widget_number(class: &Class, name: &str, values: &[Json]) -> Option<usize> {
    let mut at = 0;
    for widget in class.widgets() {
        if widget.name == name {
            return Some(at);
        }
        at += 1;
        // A seed is followed by what happens to it after a run.
        if widget.is_seed() && values.get(at).is_some_and(is_control) {
            at += 1;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn widgets_are_set_however_they_are_written() {
        let class = crate::workflow::nodes::class("KSampler").unwrap();
        for (before, after) in [
            (json!([5, "fixed", 2]), json!([5, "fixed", 9])),
            (json!([5, 2]), json!([5, 9])),
            (json!({ "0": 5, "1": "fixed", "2": 2 }), json!({ "0": 5, "1": "fixed", "2": 9 })),
            (json!({ "seed": 5, "steps": 2 }), json!({ "seed": 5, "steps": 9 })),
        ] {
            let mut ui = json!({ "nodes": [{ "id": 3, "widgets_values": before }] });
            assert!(set_widget(&mut ui, "3", class, "steps", &json!(9)));
            assert_eq!(ui["nodes"][0]["widgets_values"], after);
        }
        let mut short = json!({ "nodes": [{ "id": 3, "widgets_values": [5] }] });
        assert!(!set_widget(&mut short, "3", class, "steps", &json!(9)));
    }
}
