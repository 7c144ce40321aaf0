//! Nodes that hold a value. Their values are put where they are used before anything runs; what is
//! left for them to do is next to nothing.

use super::node_class::Function::Plain;
use super::node_class::{Hooks, NodeClass};
use crate::Result;
use crate::workflow::spec::{Class, Kind, Slot, Type, int, switch, words};
use crate::workflow::value::{Arguments, Value};

pub(super) const CLASSES: &[NodeClass] = &[
    NodeClass {
        spec: Class {
            name: "PrimitiveInt",
            title: "Int",
            category: "utils/primitive",
            inputs: &[int("value", 0, -(i64::MAX as i128), i64::MAX as i128)],
            outputs: &[Type::Int],
            ..Class::BLANK
        },
        run: Plain(integer),
        hooks: Hooks::NONE,
    },
    NodeClass {
        spec: Class {
            name: "PrimitiveFloat",
            title: "Float",
            category: "utils/primitive",
            inputs: &[Slot {
                name: "value",
                kind: Kind::Float { default: 0.0, min: -(i64::MAX as f64), max: i64::MAX as f64 },
                optional: false,
            }],
            outputs: &[Type::Float],
            ..Class::BLANK
        },
        run: Plain(number),
        hooks: Hooks::NONE,
    },
    NodeClass {
        spec: Class {
            name: "PrimitiveString",
            title: "Text",
            category: "utils/primitive",
            inputs: &[words("value", "")],
            outputs: &[Type::Text],
            ..Class::BLANK
        },
        run: Plain(text),
        hooks: Hooks::NONE,
    },
    NodeClass {
        spec: Class {
            name: "PrimitiveStringMultiline",
            title: "Text (Multiline)",
            category: "utils/primitive",
            inputs: &[words("value", "")],
            outputs: &[Type::Text],
            ..Class::BLANK
        },
        run: Plain(text),
        hooks: Hooks::NONE,
    },
    NodeClass {
        spec: Class {
            name: "PrimitiveBoolean",
            title: "Boolean",
            category: "utils/primitive",
            inputs: &[switch("value", false)],
            outputs: &[Type::Bool],
            ..Class::BLANK
        },
        run: Plain(boolean),
        hooks: Hooks::NONE,
    },
];

fn integer(args: &Arguments<'_>) -> Result<Vec<Value>> {
    Ok(vec![Value::Int(args.int("value")?)])
}

fn number(args: &Arguments<'_>) -> Result<Vec<Value>> {
    Ok(vec![Value::Float(args.float("value")?)])
}

fn text(args: &Arguments<'_>) -> Result<Vec<Value>> {
    Ok(vec![Value::Text(args.text("value")?.to_owned())])
}

fn boolean(args: &Arguments<'_>) -> Result<Vec<Value>> {
    Ok(vec![Value::Bool(args.switch("value")?)])
}

/// Whether all that nodes of a class do is to give the value of their input `value`: of ComfyUI's classes it is those
/// with such a name, some that do not run here included.
pub(crate) fn is_constant(class: &str) -> bool {
    class.starts_with("Primitive")
}
