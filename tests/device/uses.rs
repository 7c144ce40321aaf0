//! What a shader does with what is bound to it. naga counts both ways of a branch; here the one that a variant's
//! constants choose counts alone.

use std::collections::HashMap;

use naga::compact::{KeepUnused, compact};
use naga::valid::{Capabilities, GlobalUse, ValidationFlags, Validator};
use naga::{Block, Expression, Function, GlobalVariable, Handle, Literal, LocalVariable, Module, Statement};

/// What `main` does with each storage buffer and uniform, by the binding's number.
pub fn uses(module: &Module) -> HashMap<u32, GlobalUse> {
    let mut module = module.clone();
    let whole = module.clone();
    let constants = Constants { module: &whole };
    let main = module.entry_points.iter_mut().map(|e| &mut e.function);
    for function in module.functions.iter_mut().map(|(_, f)| f).chain(main) {
        constants.choose(function);
    }
    // What is read in code that is never reached no longer counts.
    compact(&mut module, KeepUnused::Yes);
    let mut validator = Validator::new(ValidationFlags::empty(), Capabilities::all());
    let info = validator.validate(&module).expect("valid before");
    let of = |(handle, global): (Handle<GlobalVariable>, &GlobalVariable)| {
        global.binding.as_ref().map(|b| (b.binding, info.get_entry_point(0)[handle]))
    };
    module.global_variables.iter().filter_map(of).collect()
}

/// Whether nothing comes behind it.
fn ends(statement: &Statement) -> bool {
    match statement {
        Statement::Return { .. } | Statement::Break | Statement::Continue | Statement::Kill => true,
        Statement::Block(block) => block.last().is_some_and(ends),
        _ => false,
    }
}

/// Truths that are known before a shader runs.
struct Constants<'a> {
    module: &'a Module,
}

/// Those of a function's nameless variables, which hold what `&&` and `||` come to.
type Known = HashMap<Handle<LocalVariable>, bool>;

impl Constants<'_> {
    /// Leaves of each branch by a constant the way that is taken.
    fn choose(&self, function: &mut Function) {
        let body = std::mem::take(&mut function.body);
        // A name would keep what is on no way.
        function.named_expressions.clear();
        function.body = self.chosen(function, body, &mut Known::new());
    }

    fn chosen(&self, function: &Function, block: Block, known: &mut Known) -> Block {
        let mut left = Block::new();
        for (statement, span) in block.span_into_iter() {
            let inner = |block, known: &Known| self.chosen(function, block, &mut known.clone());
            let statement = match statement {
                Statement::If { condition, accept, reject } => match self.truth(function, condition, known) {
                    Some(true) => Statement::Block(self.chosen(function, accept, known)),
                    Some(false) => Statement::Block(self.chosen(function, reject, known)),
                    None => Statement::If {
                        condition,
                        accept: inner(accept, known),
                        reject: inner(reject, known),
                    },
                },
                Statement::Block(block) => Statement::Block(self.chosen(function, block, known)),
                Statement::Loop { body, continuing, break_if } => Statement::Loop {
                    body: inner(body, known),
                    continuing: inner(continuing, known),
                    break_if,
                },
                Statement::Store { pointer, value } => {
                    if let Expression::LocalVariable(variable) = function.expressions[pointer]
                        && function.local_variables[variable].name.is_none()
                        && let Some(value) = self.truth(function, value, known)
                    {
                        known.insert(variable, value);
                    }
                    Statement::Store { pointer, value }
                }
                other => other,
            };
            let last = ends(&statement);
            left.push(statement, span);
            if last {
                break;
            }
        }
        left
    }

    fn truth(&self, function: &Function, of: Handle<Expression>, known: &Known) -> Option<bool> {
        match function.expressions[of] {
            Expression::Literal(Literal::Bool(value)) => Some(value),
            Expression::Constant(constant) => {
                match self.module.global_expressions[self.module.constants[constant].init] {
                    Expression::Literal(Literal::Bool(value)) => Some(value),
                    _ => None,
                }
            }
            // Of a function that does nothing but return one.
            Expression::CallResult(callee) => {
                let callee = &self.module.functions[callee];
                match callee.body.iter().find(|s| !matches!(s, Statement::Emit(_))) {
                    Some(Statement::Return { value: Some(value) }) => {
                        self.truth(callee, *value, &Known::new())
                    }
                    _ => None,
                }
            }
            Expression::Load { pointer } => match function.expressions[pointer] {
                Expression::LocalVariable(variable) => known.get(&variable).copied(),
                _ => None,
            },
            Expression::Unary { op: naga::UnaryOperator::LogicalNot, expr } => {
                self.truth(function, expr, known).map(|value| !value)
            }
            _ => None,
        }
    }
}
