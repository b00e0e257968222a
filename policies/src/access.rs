//! Access: which models and providers a request may use, and what it must say about itself.
//!
//! Rules
//! - Every rule whose scope a request is in must be kept; a rule that names nobody is for everybody.
//! - An allow list admits what is on it and nothing else; a deny list refuses what is on it. Where both name
//!   something, it is refused.
//! - Names are compared without regard to the case of ASCII letters: some providers take either.
//! - A request that may use a model nobody has seen keeps no rule about models.
//!
//! Not here: which models a request names (`bursar`), what it costs (`price`).

use crate::budget::{Facts, Scope};
use bursar_domain::{Identity, Label};
use std::fmt;

/// A list of names that may be used, and one of names that may not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NameRule {
    /// If it is there, nothing else may be used. A name that ends in `*` means all that begin so.
    pub allow: Option<Vec<Label>>,
    /// What may not be used, written in the same way.
    pub deny: Vec<Label>,
}

impl NameRule {
    /// Only what is on this list; without one, anything.
    #[must_use]
    pub const fn only(allow: Option<Vec<Label>>) -> Self {
        Self { allow, deny: Vec::new() }
    }

    /// Whether there is anything that may not be used.
    #[must_use]
    pub const fn restricts(&self) -> bool {
        self.allow.is_some() || !self.deny.is_empty()
    }

    /// Whether `name` may be used.
    #[must_use]
    pub fn allows(&self, name: &str) -> bool {
        let Self { allow, deny } = self;
        let is_on = |list: &[Label]| list.iter().any(|pattern| is_meant(pattern.as_str(), name));
        allow.as_ref().is_none_or(|list| is_on(list)) && !is_on(deny)
    }
}

/// Whether `pattern`, a name or the beginning of one followed by `*`, means `name`.
fn is_meant(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => {
            name.as_bytes().get(..start.len()).is_some_and(|head| head.eq_ignore_ascii_case(start.as_bytes()))
        }
        None => pattern.eq_ignore_ascii_case(name),
    }
}

/// Something that a request says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Its team.
    Team,
    /// Its workload.
    Workload,
    /// Its customer.
    Customer,
    /// Its session.
    Session,
    /// The tag of this name.
    Tag(Label),
}

impl Part {
    /// Whether `identity` has it.
    #[must_use]
    pub fn is_in(&self, identity: &Identity) -> bool {
        match self {
            Self::Team => identity.team.is_some(),
            Self::Workload => identity.workload.is_some(),
            Self::Customer => identity.customer.is_some(),
            Self::Session => identity.session.is_some(),
            Self::Tag(name) => identity.tags.get(name.as_str()).is_some(),
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Team => f.write_str("team"),
            Self::Workload => f.write_str("workload"),
            Self::Customer => f.write_str("customer"),
            Self::Session => f.write_str("session"),
            Self::Tag(name) => write!(f, "tag:{name}"),
        }
    }
}

/// What happens to calls of which nobody knows what they may cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unpriced {
    /// They pass.
    #[default]
    Allow,
    /// They are refused.
    Refuse,
}

/// A rule about access.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessRule {
    /// Its name.
    pub name: Label,
    /// Whom it is about.
    pub scope: Scope,
    /// Teams that it is not about after all.
    pub except_teams: Vec<Label>,
    /// Which models may be used.
    pub models: NameRule,
    /// Which providers may be used.
    pub providers: NameRule,
    /// What must be said.
    pub required: Vec<Part>,
    /// Whether a call may pass whose cost nobody can bound.
    pub unpriced: Unpriced,
}

impl AccessRule {
    /// A rule for everybody that allows everything.
    #[must_use]
    pub fn named(name: Label) -> Self {
        Self {
            name,
            scope: Scope::default(),
            except_teams: Vec::new(),
            models: NameRule::default(),
            providers: NameRule::default(),
            required: Vec::new(),
            unpriced: Unpriced::Allow,
        }
    }

    /// Whether it is about a request of `facts`. Their model plays no part.
    #[must_use]
    pub fn is_about(&self, facts: &Facts<'_>) -> bool {
        let excepted =
            facts.team.is_some_and(|team| self.except_teams.iter().any(|one| one.as_str() == team));
        !excepted && self.scope.matches(facts)
    }

    /// Whether it depends on the model, or on what the call may cost.
    #[must_use]
    pub const fn wants_body(&self) -> bool {
        self.models.restricts() || matches!(self.unpriced, Unpriced::Refuse)
    }

    /// Whether a request keeps this rule, its price aside.
    ///
    /// # Errors
    /// The first thing that breaks it.
    pub fn check(&self, identity: &Identity, provider: &Label, models: &Models) -> Result<(), Broken> {
        if let Some(part) = self.required.iter().find(|part| !part.is_in(identity)) {
            return Err(Broken::Missing(part.clone()));
        }
        if !self.providers.allows(provider.as_str()) {
            return Err(Broken::Provider(provider.clone()));
        }
        if !self.models.restricts() {
            return Ok(());
        }
        match models {
            Models::None => Ok(()),
            Models::Unseen(why) => Err(Broken::ModelUnseen(why)),
            Models::Named(names) => match names.iter().find(|name| !self.models.allows(name.as_str())) {
                Some(name) => Err(Broken::Model(name.clone())),
                None => Ok(()),
            },
        }
    }
}

/// The models that a request may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Models {
    /// It uses none.
    None,
    /// These, and no others.
    Named(Vec<Label>),
    /// Nobody knows which; the text says why.
    Unseen(&'static str),
}

/// What breaks a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Broken {
    /// This model may not be used.
    Model(Label),
    /// A model may be used that nobody has seen; the text says why.
    ModelUnseen(&'static str),
    /// This provider may not be used.
    Provider(Label),
    /// This is not said.
    Missing(Part),
}

#[cfg(test)]
mod tests {
    use super::*;
    use bursar_domain::IdentitySource;

    fn label(text: &str) -> Label {
        Label::new(text).unwrap()
    }

    fn labels(names: &[&str]) -> Vec<Label> {
        names.iter().map(|name| label(name)).collect()
    }

    fn check_names(allow: Option<&[&str]>, deny: &[&str], name: &str, expected: bool) {
        let rule = NameRule { allow: allow.map(labels), deny: labels(deny) };
        assert_eq!(rule.allows(name), expected, "{allow:?} {deny:?} {name}");
    }

    #[test]
    fn an_allow_list_admits_its_names_and_a_deny_list_wins_over_it() {
        check_names(None, &[], "gpt-4o", true);
        check_names(Some(&["gpt-4o"]), &[], "gpt-4o", true);
        check_names(Some(&["gpt-4o"]), &[], "gpt-4o-mini", false);
        check_names(Some(&["gpt-4o*"]), &[], "gpt-4o-mini", true);
        check_names(Some(&["gpt-4o*"]), &["gpt-4o-audio*"], "gpt-4o-audio-preview", false);
        check_names(Some(&[]), &[], "gpt-4o", false);
        check_names(None, &["claude-opus*"], "claude-opus-4-1", false);
        check_names(None, &["claude-opus*"], "claude-sonnet-4", true);
    }

    #[test]
    fn another_case_hides_no_name() {
        check_names(None, &["gpt-4o"], "GPT-4O", false);
        check_names(None, &["gpt-4o*"], "Gpt-4O-mini", false);
        check_names(Some(&["gpt-4o*"]), &[], "GPT-4o-mini", true);
        check_names(Some(&["é*"]), &[], "e", false);
    }

    fn identity(team: Option<&str>) -> Identity {
        let mut identity = Identity::unallocated();
        identity.team = team.map(label);
        identity.source = IdentitySource::Header;
        identity
    }

    fn check(rule: &AccessRule, models: Models, expected: Result<(), Broken>) {
        assert_eq!(rule.check(&identity(Some("a")), &label("openai"), &models), expected, "{models:?}");
    }

    #[test]
    fn every_model_that_a_request_names_must_be_allowed() {
        let mut rule = AccessRule::named(label("r"));
        rule.models = NameRule::only(Some(labels(&["cheap", "mid*"])));
        check(&rule, Models::Named(labels(&["cheap"])), Ok(()));
        check(&rule, Models::Named(labels(&["cheap", "mid-1"])), Ok(()));
        check(&rule, Models::Named(labels(&["cheap", "dear"])), Err(Broken::Model(label("dear"))));
        check(&rule, Models::Unseen("why"), Err(Broken::ModelUnseen("why")));
        check(&rule, Models::None, Ok(()));
    }

    #[test]
    fn a_rule_without_models_does_not_ask_for_them() {
        let mut rule = AccessRule::named(label("r"));
        rule.providers = NameRule { allow: None, deny: labels(&["xai"]) };
        check(&rule, Models::Unseen("why"), Ok(()));
        rule.providers.deny.push(label("openai"));
        check(&rule, Models::None, Err(Broken::Provider(label("openai"))));
        assert!(!rule.wants_body());
    }

    #[test]
    fn what_is_required_must_be_said() {
        let mut rule = AccessRule::named(label("r"));
        rule.required = vec![Part::Team, Part::Tag(label("cost-center"))];
        let missing = Err(Broken::Missing(Part::Tag(label("cost-center"))));
        check(&rule, Models::None, missing);
        let mut told = identity(Some("a"));
        told.tags.insert(label("cost-center"), label("7"));
        assert_eq!(rule.check(&told, &label("openai"), &Models::None), Ok(()));
    }

    #[test]
    fn a_rule_is_about_its_scope_but_for_the_teams_it_excepts() {
        let facts = |team| Facts {
            team,
            workload: None,
            customer: None,
            provider: "openai",
            model: None,
            model_served: None,
            may_be_any_model: false,
            has_tag: &|_, _| false,
        };
        let mut rule = AccessRule::named(label("r"));
        rule.except_teams = labels(&["research"]);
        assert!(rule.is_about(&facts(Some("a"))) && rule.is_about(&facts(None)));
        assert!(!rule.is_about(&facts(Some("research"))));
        rule.scope.team = Some(label("a"));
        assert!(rule.is_about(&facts(Some("a"))) && !rule.is_about(&facts(Some("b"))));
    }
}
