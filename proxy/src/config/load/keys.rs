//! Rules between keys, issuers of tokens and the rest of a configuration.
//!
//! Not here: reading the list (`config::keys`).

use super::Loader;
use crate::config::Config;
use crate::config::error::{Origin, Wrong};
use crate::config::settings as s;
use crate::config::suggest::nearest;
use crate::credentials::Grant;
use crate::credentials::keys::{Key, Keys, Pepper};
use bursar_domain::Label;
use std::sync::Arc;

impl Loader<'_> {
    /// Whether routes ask for a key unless they say otherwise. Called after the keys were read.
    pub(super) fn require_key(&mut self) -> bool {
        let chosen = self.get(&s::IDENTITY_REQUIRE_KEY);
        let has_keys = self.has_credentials();
        if chosen.value == Some(true) && !has_keys {
            let remedy = "add keys or identity.jwt, or remove this";
            let wrong = Wrong::value("true", "asks for a key, and there is none", remedy);
            self.wrong(&chosen.origin, s::IDENTITY_REQUIRE_KEY.path, wrong);
        }
        let required = chosen.value.unwrap_or(has_keys);
        // What follows from another setting is as much in force as what was written.
        let shown = self.effective.iter_mut().find(|one| one.path == s::IDENTITY_REQUIRE_KEY.path);
        if let Some(shown) = shown {
            shown.value = required.to_string();
        }
        self.requires_key = required;
        required
    }

    pub(super) fn has_credentials(&self) -> bool {
        !self.keys.is_empty() || !self.issuers.is_empty()
    }

    /// The keys with the pepper that their hashes were made with.
    pub(super) fn key_table(&mut self) -> Arc<Keys> {
        let file = self.get(&s::IDENTITY_KEY_PEPPER_FILE);
        let path = s::IDENTITY_KEY_PEPPER_FILE.path;
        let pepper = file.value.and_then(|name| self.secret_file(&file.origin, path, &name));
        let needs_it = |key: &Key| key.secrets.iter().any(|one| one.hash.is_peppered());
        if file.origin == Origin::Default
            && let Some(key) = self.keys.iter().find(|key| needs_it(key))
        {
            let what = format!("the hash of the key {:?} was made with a pepper (b3p:)", key.name.as_str());
            let remedy = "set identity.key_pepper_file to the file that it was made with";
            let origin = self.place_of(s::KEYS.path);
            self.wrong(&origin, s::KEYS.path, Wrong::absent(&what, remedy));
        }
        let pepper = pepper.map(|pepper| Pepper::new(pepper.expose())).unwrap_or_default();
        Arc::new(Keys::new(&self.keys, &pepper))
    }

    /// Keys and issuers are for routes that exist.
    pub(super) fn keys_fit(&mut self, config: &Config) {
        let keys: Vec<(&Label, &Grant)> = config.keys.iter().map(|key| (&key.name, &key.grant)).collect();
        self.grants_fit(config, (s::KEYS.path, "key"), &keys);
        let issuers = config.issuers.all().map(|issuer| (&issuer.rules.name, &issuer.rules.grant));
        self.grants_fit(config, (s::IDENTITY_JWT.path, "issuer"), &issuers.collect::<Vec<_>>());
    }

    fn grants_fit(&mut self, config: &Config, (path, kind): (&str, &str), grants: &[(&Label, &Grant)]) {
        let names: Vec<&str> = config.routes.iter().map(|route| route.name.as_str()).collect();
        let origin = self.place_of(path);
        let routes = grants
            .iter()
            .flat_map(|(name, grant)| grant.routes.iter().flatten().map(move |route| (*name, route)));
        for (name, route) in routes.filter(|(_, route)| !names.contains(&route.as_str())) {
            let remedy = match nearest(route.as_str(), names.iter().copied()) {
                Some(name) => format!("did you mean {name:?}?"),
                None => "write the prefix of a route, as `bursar check --show` lists them".to_owned(),
            };
            let what = format!("is no route, and the {kind} {:?} is for it", name.as_str());
            self.wrong(&origin, path, Wrong::value(route.as_str(), &what, &remedy));
        }
    }

    pub(super) fn place_of(&self, path: &str) -> Origin {
        self.raw.values.get(path).map_or(Origin::Default, |found| self.place(found.key_at))
    }
}
