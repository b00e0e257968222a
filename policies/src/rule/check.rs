//! Compiles expressions: parses them, and checks names, functions, types and size before they are used.
//!
//! Invariants
//! - What passes here names only what `facts` has, calls only what is listed here, and is a truth value.
//! - Its text, nesting and parts are bounded before the parser or the interpreter sees them.
//!
//! Not here: values (`facts`), evaluation (`rule`).

use super::facts::{Kind, Uses, VARIABLES};
use cel::common::ast::{CallExpr, ComprehensionExpr, Expr, LiteralValue, SelectExpr, operators as op};
use cel::{Env, IdedExpr, Program};

/// Longest expression.
pub const SOURCE_BYTES_MAX: usize = 2_048;
/// Most parts (names, values, operators, calls) of one.
pub const NODES_MAX: usize = 256;
/// Deepest nesting of brackets, and most signs in a row, and most `?`. The parser recurses through a dozen
/// levels of its grammar for each.
const NESTING_MAX: usize = 8;
/// Most parts within one another, which is how deep the interpreter recurses.
const DEPTH_MAX: usize = 24;
/// The stack of the parser; it was seen to need a tenth of it for what is taken.
const STACK_BYTES: usize = 16 << 20;

/// Why an expression is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {message}")]
pub struct CompileError {
    /// The line in the expression, from 1.
    pub line: usize,
    /// The column, from 1, in characters.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub remedy: String,
}

impl CompileError {
    fn at((line, column): (usize, usize), message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { line, column, message: message.into(), remedy: remedy.into() }
    }
}

/// What an expression is evaluated in.
pub(super) fn environment() -> Env {
    Env::stdlib().with_optional_support(false)
}

/// A type.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Type {
    Bool,
    Int,
    Text,
    List(Box<Self>),
    /// By text.
    Map(Box<Self>),
    /// A group of variables.
    Group(String),
    /// Percents by the name of a budget, which must be written out.
    Budgets,
}

impl std::fmt::Display for Type {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bool => f.write_str("a bool"),
            Self::Int => f.write_str("an int"),
            Self::Text => f.write_str("a string"),
            Self::List(_) => f.write_str("a list"),
            Self::Map(_) => f.write_str("a map"),
            Self::Group(name) => write!(f, "the group `{name}`"),
            Self::Budgets => f.write_str("the map `budgets`"),
        }
    }
}

fn of_kind(kind: Kind) -> Type {
    match kind {
        Kind::Text => Type::Text,
        Kind::Int | Kind::MaybeInt => Type::Int,
        Kind::Truth => Type::Bool,
        Kind::Texts => Type::Map(Box::new(Type::Text)),
        Kind::Percents => Type::Budgets,
    }
}

/// Compiles on a stack of its own: the parser recurses deeply, and whoever reads a configuration may have
/// little left.
pub(super) fn compile(text: &str) -> Result<(Program, Uses), CompileError> {
    bounded(text)?;
    let failed = || CompileError::at((1, 1), "the parser failed", "write it more simply");
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, || parsed(text));
        thread.map_err(|_| failed())?.join().map_err(|_| failed())?
    })
}

fn parsed(text: &str) -> Result<(Program, Uses), CompileError> {
    let program = environment().compile(text).map_err(|errors| match errors.errors.first() {
        Some(error) => {
            let place = |at: isize| usize::try_from(at).unwrap_or(1).max(1);
            let message = error.msg.lines().next().unwrap_or("it cannot be read").to_owned();
            CompileError::at(
                (place(error.pos.0), place(error.pos.1)),
                message,
                "write an expression of CEL, such as `team != \"research\"`",
            )
        }
        None => CompileError::at((1, 1), "it cannot be read", "write an expression of CEL"),
    })?;
    let mut checker =
        Checker { text, program: &program, uses: Uses::default(), scope: Vec::new(), nodes: 0, depth: 0 };
    let found = checker.type_of(program.expression())?;
    if found != Type::Bool {
        return Err(CompileError::at(
            (1, 1),
            format!("it is {found} and no truth value"),
            "compare it with something, such as `… == \"x\"` or `… > 0`",
        ));
    }
    let uses = checker.uses;
    Ok((program, uses))
}

/// Refuses what is too long or too deep before anything recurses into it.
fn bounded(text: &str) -> Result<(), CompileError> {
    let error = |message: String, remedy: &str| Err(CompileError::at((1, 1), message, remedy));
    if text.trim().is_empty() {
        return error("it is empty".to_owned(), "write an expression, or remove the key");
    }
    if text.len() > SOURCE_BYTES_MAX {
        return error(
            format!("it is longer than {SOURCE_BYTES_MAX} bytes"),
            "make several rules of it, or compare a tag",
        );
    }
    let (mut depth, mut deepest, mut signs, mut most_signs) = (0_usize, 0_usize, 0_usize, 0_usize);
    let (mut questions, mut quote, mut escaped) = (0_usize, None, false);
    for c in text.chars() {
        if let Some(end) = quote {
            match c {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                _ if c == end => quote = None,
                _ => {}
            }
            continue;
        }
        match c {
            '"' | '\'' => quote = Some(c),
            '(' | '[' | '{' => depth = depth.saturating_add(1),
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            '?' => questions = questions.saturating_add(1),
            _ => {}
        }
        match c {
            '!' | '-' => signs = signs.saturating_add(1),
            _ if c.is_whitespace() => {}
            _ => signs = 0,
        }
        deepest = deepest.max(depth);
        most_signs = most_signs.max(signs);
    }
    if deepest > NESTING_MAX || most_signs > NESTING_MAX || questions > NESTING_MAX {
        return error(format!("it is nested deeper than {NESTING_MAX}"), "make several rules of it");
    }
    Ok(())
}

struct Checker<'a> {
    text: &'a str,
    program: &'a Program,
    uses: Uses,
    /// Names of the comprehension that is looked at.
    scope: Vec<(String, Type)>,
    nodes: usize,
    depth: usize,
}

const COMPARE: &[&str] = &[op::LESS, op::LESS_EQUALS, op::GREATER, op::GREATER_EQUALS];
const ARITHMETIC: &[&str] = &[op::ADD, op::SUBSTRACT, op::MULTIPLY, op::DIVIDE, op::MODULO];
const OFFERED: &str = "use size, startsWith, endsWith, contains, has, in, exists, exists_one or all";

impl Checker<'_> {
    /// Where a part begins.
    fn place(&self, id: u64) -> (usize, usize) {
        let offset = self.program.source_info().offset_for(id).map_or(0, |(start, _)| start);
        let before = self.text.chars().take(usize::try_from(offset).unwrap_or(0));
        before.fold((1_usize, 1_usize), |(line, column), c| {
            if c == '\n' { (line.saturating_add(1), 1) } else { (line, column.saturating_add(1)) }
        })
    }

    fn wrong<T>(
        &self,
        id: u64,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Result<T, CompileError> {
        Err(CompileError::at(self.place(id), message, remedy))
    }

    fn type_of(&mut self, part: &IdedExpr) -> Result<Type, CompileError> {
        if self.depth >= DEPTH_MAX {
            let message = format!("more than {DEPTH_MAX} parts are within one another");
            return self.wrong(part.id, message, "make several rules of it");
        }
        self.depth = self.depth.saturating_add(1);
        let found = self.type_within(part);
        self.depth = self.depth.saturating_sub(1);
        found
    }

    fn type_within(&mut self, part: &IdedExpr) -> Result<Type, CompileError> {
        self.nodes = self.nodes.saturating_add(1);
        if self.nodes > NODES_MAX {
            return self.wrong(
                part.id,
                format!("it has more than {NODES_MAX} parts"),
                "make several rules of it",
            );
        }
        match &part.expr {
            Expr::Ident(name) => self.name(part.id, name),
            Expr::Literal(value) => self.literal(part.id, value),
            Expr::Select(select) => self.select(part.id, select),
            Expr::Call(call) => self.call(part.id, call),
            Expr::List(list) => {
                let mut kind: Option<Type> = None;
                for element in &list.elements {
                    let found = self.type_of(element)?;
                    if kind.as_ref().is_some_and(|kind| *kind != found) {
                        return self.wrong(
                            element.id,
                            "a list of several types",
                            "write elements of one type",
                        );
                    }
                    kind = Some(found);
                }
                match kind {
                    Some(kind) => Ok(Type::List(Box::new(kind))),
                    None => self.wrong(part.id, "an empty list", "write its elements"),
                }
            }
            Expr::Comprehension(comprehension) => self.comprehension(part.id, comprehension),
            Expr::Map(_) | Expr::Struct(_) => {
                self.wrong(part.id, "maps cannot be written here", "compare with texts and numbers")
            }
            Expr::Unspecified => self.wrong(part.id, "a part is missing", "write it"),
        }
    }

    fn literal(&self, id: u64, value: &LiteralValue) -> Result<Type, CompileError> {
        match value {
            LiteralValue::Boolean(_) => Ok(Type::Bool),
            LiteralValue::Int(_) => Ok(Type::Int),
            LiteralValue::String(_) => Ok(Type::Text),
            LiteralValue::Double(_) => self.wrong(
                id,
                "fractions are not offered",
                "write whole numbers; money is in millionths (`estimated.cost_micros`)",
            ),
            LiteralValue::UInt(_) => {
                self.wrong(id, "there are no unsigned numbers here", "leave out the `u`")
            }
            LiteralValue::Bytes(_) => self.wrong(id, "there are no bytes here", "leave out the `b`"),
            LiteralValue::Null => self.wrong(
                id,
                "nothing is null here",
                "a text that is not there is \"\"; test a number with has()",
            ),
        }
    }

    fn name(&mut self, id: u64, name: &str) -> Result<Type, CompileError> {
        if let Some((_, kind)) = self.scope.iter().rev().find(|(known, _)| known == name) {
            return Ok(kind.clone());
        }
        if let Some(place) = VARIABLES.iter().position(|variable| variable.name == name) {
            self.uses.add(place);
            return Ok(VARIABLES.get(place).map_or(Type::Text, |variable| of_kind(variable.kind)));
        }
        let group = format!("{name}.");
        if VARIABLES.iter().any(|variable| variable.name.starts_with(&group)) {
            return Ok(Type::Group(name.to_owned()));
        }
        let mut known: Vec<&str> =
            VARIABLES.iter().map(|variable| variable.name.split('.').next().unwrap_or_default()).collect();
        known.dedup();
        self.wrong(id, format!("unknown variable `{name}`"), format!("known are {}", known.join(", ")))
    }

    fn select(&mut self, id: u64, select: &SelectExpr) -> Result<Type, CompileError> {
        let field = &select.field;
        let found = match self.type_of(&select.operand)? {
            Type::Group(group) => {
                let name = format!("{group}.{field}");
                match VARIABLES.iter().position(|variable| variable.name == name) {
                    Some(place) => {
                        self.uses.add(place);
                        VARIABLES.get(place).map_or(Type::Text, |variable| of_kind(variable.kind))
                    }
                    None => {
                        let start = format!("{group}.");
                        let known: Vec<&str> = VARIABLES
                            .iter()
                            .map(|v| v.name)
                            .filter(|known| known.starts_with(&start))
                            .collect();
                        return self.wrong(
                            id,
                            format!("unknown variable `{name}`"),
                            format!("known are {}", known.join(", ")),
                        );
                    }
                }
            }
            Type::Map(values) => *values,
            Type::Budgets => {
                self.uses.budgets.insert(field.as_str().into());
                Type::Int
            }
            other => {
                return self.wrong(
                    id,
                    format!("{other} has no `{field}`"),
                    "only groups and maps have fields",
                );
            }
        };
        Ok(if select.test { Type::Bool } else { found })
    }

    fn call(&mut self, id: u64, call: &CallExpr) -> Result<Type, CompileError> {
        let name = call.func_name.as_str();
        if name == op::INDEX {
            return self.index(id, call);
        }
        let target = call.target.as_deref().map(|target| self.type_of(target)).transpose()?;
        if let (None, op::IN, [_, container]) = (&target, name, call.args.as_slice())
            && matches!(&container.expr, Expr::Ident(name) if name == "budgets")
        {
            return self.wrong(id, "budgets are named in the configuration", "write `budgets[\"name\"]`");
        }
        let mut args = Vec::with_capacity(call.args.len());
        for arg in &call.args {
            args.push(self.type_of(arg)?);
        }
        let args: Vec<&Type> = args.iter().collect();
        let fits = match (name, target.as_ref(), args.as_slice()) {
            (op::LOGICAL_AND | op::LOGICAL_OR, None, all) if all.iter().all(|t| **t == Type::Bool) => {
                Some(Type::Bool)
            }
            (op::LOGICAL_NOT | op::NOT_STRICTLY_FALSE, None, [Type::Bool]) => Some(Type::Bool),
            (op::NEGATE, None, [Type::Int]) => Some(Type::Int),
            (op::EQUALS | op::NOT_EQUALS, None, [a, b])
                if a == b && !matches!(a, Type::Group(_) | Type::Budgets) =>
            {
                Some(Type::Bool)
            }
            (name, None, [Type::Int, Type::Int] | [Type::Text, Type::Text]) if COMPARE.contains(&name) => {
                Some(Type::Bool)
            }
            (name, None, [Type::Int, Type::Int]) if ARITHMETIC.contains(&name) => Some(Type::Int),
            (op::CONDITIONAL, None, [Type::Bool, a, b]) if a == b => Some((*a).clone()),
            (op::IN, None, [a, Type::List(b)]) if **a == **b => Some(Type::Bool),
            (op::IN, None, [Type::Text, Type::Map(_)]) => Some(Type::Bool),
            ("size", None, [Type::Text | Type::List(_) | Type::Map(_)])
            | ("size", Some(Type::Text | Type::List(_) | Type::Map(_)), []) => Some(Type::Int),
            ("startsWith" | "endsWith" | "contains", Some(Type::Text), [Type::Text]) => Some(Type::Bool),
            _ => None,
        };
        match fits {
            Some(kind) => Ok(kind),
            None => self.misfit(id, name, target.as_ref(), &args),
        }
    }

    fn misfit(
        &self,
        id: u64,
        name: &str,
        target: Option<&Type>,
        args: &[&Type],
    ) -> Result<Type, CompileError> {
        let types: Vec<String> =
            target.into_iter().chain(args.iter().copied()).map(Type::to_string).collect();
        let types = types.join(" and ");
        if let Some(sign) = sign_of(name) {
            let remedy = if name == op::ADD { "only ints can be added" } else { "compare what has one type" };
            return self.wrong(id, format!("`{sign}` does not fit {types}"), remedy);
        }
        match name {
            "size" | "startsWith" | "endsWith" | "contains" => {
                let remedy =
                    "write text.startsWith(\"…\"), text.endsWith(\"…\"), text.contains(\"…\") or size(…)";
                self.wrong(id, format!("`{name}` does not fit {types}"), remedy)
            }
            "matches" => self.wrong(
                id,
                "regular expressions are not offered",
                "use startsWith, endsWith or contains, joined by && and ||",
            ),
            _ => self.wrong(id, format!("unknown function `{name}`"), OFFERED),
        }
    }

    fn index(&mut self, id: u64, call: &CallExpr) -> Result<Type, CompileError> {
        let (None, [of, key]) = (&call.target, call.args.as_slice()) else {
            return self.wrong(id, "an index of nothing", "write `tags[\"name\"]`");
        };
        match self.type_of(of)? {
            Type::Budgets => match &key.expr {
                Expr::Literal(LiteralValue::String(name)) => {
                    self.uses.budgets.insert(name.inner().into());
                    Ok(Type::Int)
                }
                _ => self.wrong(key.id, "a budget must be named", "write `budgets[\"name\"]`"),
            },
            Type::Map(values) => match self.type_of(key)? {
                Type::Text => Ok(*values),
                other => self.wrong(key.id, format!("a map has no {other} as a key"), "write a text"),
            },
            Type::List(values) => match self.type_of(key)? {
                Type::Int => Ok(*values),
                other => self.wrong(key.id, format!("a list has no {other} as a place"), "write an int"),
            },
            other => self.wrong(id, format!("{other} has no elements"), "write `tags[\"name\"]`"),
        }
    }

    fn comprehension(&mut self, id: u64, one: &ComprehensionExpr) -> Result<Type, CompileError> {
        if !self.scope.is_empty() {
            return self.wrong(
                id,
                "one of exists, exists_one and all is in another",
                "write them side by side",
            );
        }
        if matches!(one.accu_init.expr, Expr::List(_) | Expr::Map(_)) {
            return self.wrong(id, "map and filter are not offered", "use exists, exists_one or all");
        }
        let (first, second) = match self.type_of(&one.iter_range)? {
            Type::List(values) => (*values, None),
            Type::Map(values) => (Type::Text, Some(*values)),
            other => return self.wrong(id, format!("{other} has no elements"), "write a list, or `tags`"),
        };
        let first = match (&one.iter_var2, second) {
            (None, _) => first,
            (Some(name), Some(second)) => {
                self.scope.push((name.clone(), second));
                first
            }
            (Some(_), None) => {
                return self.wrong(id, "a list has one value for each element", "name one variable");
            }
        };
        let accumulated = self.type_of(&one.accu_init)?;
        self.scope.push((one.iter_var.clone(), first));
        self.scope.push((one.accu_var.clone(), accumulated.clone()));
        let condition = self.type_of(&one.loop_cond)?;
        let step = self.type_of(&one.loop_step)?;
        let result = self.type_of(&one.result)?;
        self.scope.clear();
        if condition != Type::Bool || step != accumulated {
            return self.wrong(id, "what is asked of each element is no truth value", "write a comparison");
        }
        Ok(result)
    }
}

fn sign_of(name: &str) -> Option<&'static str> {
    Some(match name {
        op::LOGICAL_AND => "&&",
        op::LOGICAL_OR => "||",
        op::LOGICAL_NOT => "!",
        op::EQUALS => "==",
        op::NOT_EQUALS => "!=",
        op::LESS => "<",
        op::LESS_EQUALS => "<=",
        op::GREATER => ">",
        op::GREATER_EQUALS => ">=",
        op::ADD => "+",
        op::SUBSTRACT | op::NEGATE => "-",
        op::MULTIPLY => "*",
        op::DIVIDE => "/",
        op::MODULO => "%",
        op::CONDITIONAL => "? :",
        op::IN => "in",
        _ => return None,
    })
}
