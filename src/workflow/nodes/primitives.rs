//! Nodes that hold a value. Their values are put where they are used before anything runs; what is
//! left for them to do is next to nothing.

use super::super::value::{Arguments, Value};
use super::Function::Plain;
use super::{Class, Kind, Slot, Type, int, switch, words};
use crate::Result;

pub(in super::super) const CLASSES: &[Class] = &[
    Class {
        name: "PrimitiveInt",
        inputs: &[int("value", 0, -(i64::MAX as i128), i64::MAX as i128)],
        outputs: &[Type::Int],
        is_output: false,
        run: Plain(whole),
    },
    Class {
        name: "PrimitiveFloat",
        inputs: &[Slot {
            name: "value",
            kind: Kind::Float { default: 0.0, min: -(i64::MAX as f64), max: i64::MAX as f64 },
            optional: false,
        }],
        outputs: &[Type::Float],
        is_output: false,
        run: Plain(number),
    },
    Class {
        name: "PrimitiveString",
        inputs: &[words("value", "")],
        outputs: &[Type::Text],
        is_output: false,
        run: Plain(text),
    },
    Class {
        name: "PrimitiveStringMultiline",
        inputs: &[words("value", "")],
        outputs: &[Type::Text],
        is_output: false,
        run: Plain(text),
    },
    Class {
        name: "PrimitiveBoolean",
        inputs: &[switch("value", false)],
        outputs: &[Type::Bool],
        is_output: false,
        run: Plain(boolean),
    },
];

fn whole(args: &Arguments<'_>) -> Result<Vec<Value>> {
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
