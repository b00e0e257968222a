//! JSON Patch (RFC 6902), as far as an injection needs it: members and items are added.
//!
//! Invariant: names are escaped as RFC 6901 has it, so no name of a pod's can point elsewhere.
//!
//! Not here: what is added (`decision`).

use serde_json::{Value, json};

/// One step of a path into a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step<'a> {
    /// A member.
    Key(&'a str),
    /// The item before which to add.
    Index(usize),
    /// Behind the last item.
    End,
}

/// Additions, in the order in which they are applied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Patch(Vec<(String, Value)>);

impl Patch {
    /// Adds `value` at `path`; a member of the same name would be replaced.
    pub(super) fn add(&mut self, path: &[Step<'_>], value: Value) {
        self.0.push((pointer(path), value));
    }

    /// Whether it changes nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The document as RFC 6902 writes it.
    pub(super) fn document(&self) -> Value {
        self.0.iter().map(|(path, value)| json!({"op": "add", "path": path, "value": value})).collect()
    }
}

fn pointer(path: &[Step<'_>]) -> String {
    let mut text = String::new();
    for step in path {
        text.push('/');
        match step {
            Step::Key(name) => text.push_str(&name.replace('~', "~0").replace('/', "~1")),
            Step::Index(index) => text.push_str(&index.to_string()),
            Step::End => text.push('-'),
        }
    }
    text
}

#[cfg(test)]
pub(super) mod apply {
    //! Applies additions as RFC 6902 says, for tests of what they make.

    use super::Patch;
    use serde_json::Value;

    /// `document` with every addition, or the path that leads nowhere.
    pub(crate) fn apply(document: &Value, patch: &Patch) -> Result<Value, String> {
        let mut made = document.clone();
        for (path, value) in &patch.0 {
            add(&mut made, path, value.clone()).ok_or_else(|| path.clone())?;
        }
        Ok(made)
    }

    fn add(document: &mut Value, path: &str, value: Value) -> Option<()> {
        let (parent, last) = path.rsplit_once('/')?;
        let last = last.replace("~1", "/").replace("~0", "~");
        match document.pointer_mut(parent)? {
            Value::Object(members) => {
                members.insert(last, value);
            }
            Value::Array(items) if last == "-" => items.push(value),
            Value::Array(items) => {
                let index = last.parse().ok().filter(|index| *index <= items.len())?;
                items.insert(index, value);
            }
            _ => return None,
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped_and_places_in_lists_are_told() {
        for (path, want) in [
            (&[Step::Key("metadata"), Step::Key("bursar.dev/status")][..], "/metadata/bursar.dev~1status"),
            (&[Step::Key("a~b/c")], "/a~0b~1c"),
            (&[Step::Key("~1")], "/~01"),
            (&[Step::Key("env"), Step::Index(0)], "/env/0"),
            (&[Step::Key("env"), Step::End], "/env/-"),
            (&[], ""),
        ] {
            assert_eq!(pointer(path), want);
        }
    }

    #[test]
    fn a_document_lists_the_additions_in_order() {
        let mut patch = Patch::default();
        assert!(patch.is_empty() && patch.document() == json!([]));
        patch.add(&[Step::Key("a")], json!([]));
        patch.add(&[Step::Key("a"), Step::End], json!(1));
        let wanted =
            json!([{"op": "add", "path": "/a", "value": []}, {"op": "add", "path": "/a/-", "value": 1}]);
        assert_eq!(patch.document(), wanted);
        assert_eq!(apply::apply(&json!({}), &patch), Ok(json!({"a": [1]})));
        patch.add(&[Step::Key("b"), Step::End], json!(1));
        assert_eq!(apply::apply(&json!({}), &patch), Err("/b/-".to_owned()));
    }
}
