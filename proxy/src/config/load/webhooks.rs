//! The secrets of webhooks, and rules between webhooks and budgets.
//!
//! Not here: reading the list (`config::webhooks`).

use super::{Loader, TOKEN_CHARS_MIN};
use crate::config::error::{Origin, Wrong};
use crate::config::secret::Secret;
use crate::config::settings as s;
use crate::config::suggest::nearest;
use crate::config::value::SecretVariable;
use crate::config::webhooks::{RawWebhook, SecretPlace, Webhook};
use crate::webhooks::key_of;

impl Loader<'_> {
    /// The webhooks with their secrets, told of some of these budgets.
    pub(super) fn webhooks(&mut self, budgets: &[&str]) -> Vec<Webhook> {
        let list = self.get(&s::WEBHOOKS).value.0;
        if !list.is_empty() && budgets.is_empty() {
            self.warnings.push("webhooks: there is no budget, so there is nothing to send".to_owned());
        }
        let numbered = list.into_iter().enumerate();
        numbered.filter_map(|(index, raw)| self.webhook(index, raw, budgets)).collect()
    }

    fn webhook(&mut self, index: usize, raw: RawWebhook, budgets: &[&str]) -> Option<Webhook> {
        let origin = self.place(raw.at);
        let key = |name: &str| format!("{}[{index}].{name}", s::WEBHOOKS.path);
        for name in raw.budgets.iter().flatten().filter(|name| !budgets.contains(&name.as_str())) {
            let remedy = match nearest(name.as_str(), budgets.iter().copied()) {
                Some(near) => format!("did you mean {near:?}?"),
                None => "name one of `budgets`".to_owned(),
            };
            let wrong = Wrong::value(name.as_str(), "is the name of no budget", &remedy);
            self.wrong(&origin, &key("budgets"), wrong);
        }
        if raw.events.is_empty() {
            let remedy = "name some of threshold, refusing, window, or remove the key";
            self.wrong(&origin, &key("events"), Wrong::absent("it is told of nothing", remedy));
        }
        let secret = self.webhook_secret(&origin, key("secret"), raw.secret);
        let previous = raw.previous.map(|place| self.webhook_secret(&origin, key("previous_secret"), place));
        let secrets = match previous {
            None => vec![secret?],
            Some(previous) => vec![secret?, previous?],
        };
        let RawWebhook { name, url, events, budgets, permit, .. } = raw;
        Some(Webhook { name, url, secrets, events, budgets, permit })
    }

    fn webhook_secret(&mut self, origin: &Origin, key: String, place: SecretPlace) -> Option<Secret> {
        let (secret, key) = match place {
            SecretPlace::File(path) => {
                let key = format!("{key}_file");
                (self.secret_file(origin, &key, &path)?, key)
            }
            SecretPlace::Variable(variable) => {
                let key = format!("{key}_env");
                let SecretVariable(name) = &variable;
                self.secret_variables.push(name.clone());
                (self.secret_variable(origin, &key, &variable)?, key)
            }
        };
        match key_of(&secret) {
            None => {
                let remedy = "copy it whole, or use a text of your own without whsec_";
                let wrong = Wrong::hidden("leads to a secret with no base64 behind whsec_", remedy);
                self.wrong(origin, &key, wrong);
                None
            }
            Some(bytes) => {
                if bytes.len() < TOKEN_CHARS_MIN {
                    self.warnings.push(format!(
                        "{key}: the secret has fewer than {TOKEN_CHARS_MIN} bytes and can be guessed; \
                         receivers may ask for 24 to 64"
                    ));
                }
                Some(secret)
            }
        }
    }
}
