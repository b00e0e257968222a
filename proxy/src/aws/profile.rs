//! The shared files of the AWS command line, `~/.aws/credentials` and `~/.aws/config` (AWS SDKs and Tools
//! reference guide, "Shared config and credentials files").
//!
//! Invariants
//! - A line that is neither section, comment nor assignment is stepped over, as the SDKs do.
//!
//! Not here: reading the files (`sources`).

use std::collections::HashMap;
use std::fmt;
use zeroize::Zeroizing;

/// The assignments of one profile. Keys of AWS may be among them, so that values are not shown.
#[derive(Clone, Default)]
pub(super) struct Assignments(HashMap<String, Zeroizing<String>>);

impl fmt::Debug for Assignments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// How sections are named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sections {
    /// `[name]`, in the file with credentials.
    Bare,
    /// `[profile name]`, but for `[default]`, in the file with settings.
    Prefixed,
}

impl Assignments {
    /// Adds what `text` says about the profile `name`; what is there already stays.
    pub(super) fn add(&mut self, text: &str, name: &str, sections: Sections) {
        let mut wanted = false;
        for line in text.lines() {
            let is_nested = line.starts_with([' ', '\t']);
            let line = line.trim();
            if line.is_empty() || line.starts_with(['#', ';']) || is_nested {
                continue;
            }
            if let Some(section) = line.strip_prefix('[') {
                let section = section.split(']').next().unwrap_or_default().trim();
                wanted = is_section(section, name, sections);
            } else if let Some((key, value)) = line.split_once('=').filter(|_| wanted) {
                let key = key.trim().to_ascii_lowercase();
                self.0.entry(key).or_insert_with(|| Zeroizing::new(without_comment(value).to_owned()));
            }
        }
    }

    /// The value of a key, if it is there and not empty.
    pub(super) fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(|value| value.as_str()).filter(|value| !value.is_empty())
    }

    /// Whether the profile says nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn is_section(section: &str, name: &str, sections: Sections) -> bool {
    let prefixed = section.strip_prefix("profile").filter(|rest| rest.starts_with([' ', '\t']));
    match sections {
        Sections::Bare => section == name,
        Sections::Prefixed => prefixed.map(str::trim) == Some(name) || (section == name && name == "default"),
    }
}

/// A value ends before white space and a comment sign.
fn without_comment(value: &str) -> &str {
    let comment = [" #", " ;", "\t#", "\t;"].iter().filter_map(|sign| value.find(sign)).min();
    value.get(..comment.unwrap_or(value.len())).unwrap_or_default().trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_named_section_is_read_and_the_first_word_stays() {
        let credentials = "
# made by hand
[default]
aws_access_key_id = AKID1
[work]
AWS_Access_Key_Id=AKID2 # comment
aws_secret_access_key = a=b#c/+
s3 =
    nested = 1
no assignment
[work2]
aws_session_token = no
[work]
aws_session_token = yes
";
        let config = "[work]\nregion = no\n[profile work]\nregion = eu\naws_access_key_id = AKID3\n[default]\nregion=us";
        let mut work = Assignments::default();
        work.add(credentials, "work", Sections::Bare);
        work.add(config, "work", Sections::Prefixed);
        for (key, expected) in [
            ("aws_access_key_id", Some("AKID2")),
            ("aws_secret_access_key", Some("a=b#c/+")),
            ("aws_session_token", Some("yes")),
            ("region", Some("eu")),
            ("nested", None),
            ("s3", None),
        ] {
            assert_eq!(work.get(key), expected, "{key}");
        }
        let mut default = Assignments::default();
        default.add(config, "default", Sections::Prefixed);
        assert_eq!(default.get("region"), Some("us"));
        let mut nobody = Assignments::default();
        nobody.add(credentials, "nobody", Sections::Bare);
        assert!(nobody.is_empty());
    }
}
