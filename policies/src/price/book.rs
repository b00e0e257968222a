//! The book: which rows a name means, and their tables, each made when it is first asked for.
//!
//! Invariants
//! - The rows given to a book are checked whole when it is made; asking it cannot fail.
//! - An overlay row that names exactly this model goes before one that names the model it is a dated
//!   or other name of, and that before the built-in rows.
//! - What nobody asks for costs an index entry of the built-in book and no table.
//!
//! Not here: which row holds for an item (`compile`), what a call costs (`mod`).

use super::builtin::{self, Catalogue};
use super::compile::{Sheet, Table};
use super::overlay::{self, OverlayErrors, OverlayFile};
use super::row::{PriceRow, Term};
use super::{BookError, names};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock};

/// A table, made when it is first asked for; `None` when no row of the model is a price.
type Lazy = OnceLock<Option<Box<Table>>>;

/// A set of price rows, ready to price calls. Cheap to make and to ask: a model's rows are read when
/// a call first needs them. Share one.
#[derive(Clone, Debug, Default)]
pub struct PriceBook {
    catalogue: Option<&'static Catalogue>,
    /// Tables of the built-in models, by their numbers.
    tables: Box<[Lazy]>,
    own: Own,
}

/// Rows beside those of the built-in book.
#[derive(Clone, Debug, Default)]
struct Own {
    /// By id.
    rows: Vec<PriceRow>,
    /// Every model that a row names, but not the patterns of discounts.
    models: Vec<OwnModel>,
    /// By provider.
    names: HashMap<Arc<str>, OwnNames>,
    /// Discounts on patterns, which hold for all models they match, by their places in `rows`.
    discounts: Vec<usize>,
}

#[derive(Clone, Debug)]
struct OwnModel {
    provider: Arc<str>,
    model: Arc<str>,
    /// Places in `rows`.
    rows: Vec<usize>,
    table: Lazy,
}

#[derive(Clone, Debug, Default)]
struct OwnNames {
    exact: HashMap<Arc<str>, usize>,
    /// Beginnings of names, longest first.
    beginnings: Vec<(Arc<str>, usize)>,
}

/// A model of the book, to be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelEntry {
    /// The provider.
    pub provider: Arc<str>,
    /// The model's name in the book.
    pub model: Arc<str>,
    /// Its other names.
    pub names: Vec<Arc<str>>,
}

impl PriceBook {
    /// The book without a row: everything is unpriced.
    #[must_use]
    pub fn empty() -> Self {
        Self::default()
    }

    /// The public prices that are compiled in.
    pub fn builtin() -> Result<Self, BookError> {
        let catalogue = builtin::catalogue()?;
        Ok(Self::made(Some(catalogue), Own::default()))
    }

    /// A book of `rows`, in any order.
    pub fn from_rows(rows: Vec<PriceRow>) -> Result<Self, BookError> {
        Self::made(None, Own::new(rows)?).checked()
    }

    /// This book with the rows of an overlay file, which win.
    pub fn with_overlay(&self, file: &OverlayFile) -> Result<Self, OverlayErrors> {
        let mut rows = self.own.rows.clone();
        rows.extend(overlay::rows(file)?);
        let own = Own::new(rows).map_err(OverlayErrors::from)?;
        Self::made(self.catalogue, own).checked().map_err(OverlayErrors::from)
    }

    fn made(catalogue: Option<&'static Catalogue>, own: Own) -> Self {
        let count = catalogue.map_or(0, Catalogue::len);
        Self { catalogue, tables: std::iter::repeat_with(Lazy::new).take(count).collect(), own }
    }

    /// The book, if the tables of its own models can be made.
    fn checked(self) -> Result<Self, BookError> {
        for model in &self.own.models {
            self.sheet_of_own(model)?.compile()?;
        }
        Ok(self)
    }

    /// All rows: the built-in ones by provider and model, then the others by id.
    pub fn rows(&self) -> impl Iterator<Item = PriceRow> + '_ {
        let builtin = (0..self.tables.len()).flat_map(|number| self.builtin_rows(number));
        builtin.chain(self.own.rows.iter().cloned())
    }

    /// The row with this id.
    #[must_use]
    pub fn row(&self, id: &str) -> Option<PriceRow> {
        if let Ok(at) = self.own.rows.binary_search_by(|row| (*row.id).cmp(id)) {
            return self.own.rows.get(at).cloned();
        }
        let names = |number: usize| self.catalogue.and_then(|catalogue| catalogue.names(number));
        let may_have = |number: &usize| {
            names(*number).is_some_and(|(provider, mut names)| {
                let rest = id.strip_prefix(provider).and_then(|rest| rest.strip_prefix('/'));
                rest.zip(names.next()).is_some_and(|(rest, model)| rest.starts_with(model))
            })
        };
        let numbers = (0..self.tables.len()).filter(may_have);
        numbers.flat_map(|number| self.builtin_rows(number)).find(|row| *row.id == *id)
    }

    /// Every model that has rows: the built-in ones by provider and name, then those of an overlay
    /// that are not among them.
    pub fn models(&self) -> impl Iterator<Item = ModelEntry> + '_ {
        let entry = |number| {
            let (provider, mut names) = self.catalogue?.names(number)?;
            let model = Arc::from(names.next()?);
            Some(ModelEntry { provider: Arc::from(provider), model, names: names.map(Arc::from).collect() })
        };
        let builtin = (0..self.tables.len()).filter_map(entry);
        let mine = self.own.models.iter().filter(|own| self.canonical(&own.provider, &own.model).is_none());
        builtin.chain(mine.map(|own| ModelEntry {
            provider: Arc::clone(&own.provider),
            model: Arc::clone(&own.model),
            names: Vec::new(),
        }))
    }

    /// Every row that can hold for a model under this name, and the model as the book names it;
    /// `None` when a call for it would be unpriced for its name.
    #[must_use]
    pub fn sheet(&self, provider: &str, model: &str) -> Option<(ModelEntry, Vec<PriceRow>)> {
        match self.resolve(provider, model)? {
            Found::Own(at) => {
                let own = self.own.models.get(at)?;
                let entry = ModelEntry {
                    provider: Arc::clone(&own.provider),
                    model: Arc::clone(&own.model),
                    names: Vec::new(),
                };
                Some((entry, self.sheet_of_own(own).ok()?.into_rows()))
            }
            Found::Builtin(number) => {
                let (provider, mut names) = self.catalogue?.names(number)?;
                let model = Arc::from(names.next()?);
                let names = names.map(Arc::from).collect();
                let entry = ModelEntry { provider: Arc::from(provider), model, names };
                Some((entry, self.sheet_of_builtin(number).into_rows()))
            }
        }
    }

    /// Whether the book has anything of the provider.
    pub(super) fn has_provider(&self, provider: &str) -> bool {
        self.own.names.contains_key(provider)
            || self.catalogue.is_some_and(|catalogue| catalogue.has_provider(provider))
    }

    /// The table that prices a model under this name.
    pub(super) fn table(&self, provider: &str, model: &str) -> Option<&Table> {
        match self.resolve(provider, model)? {
            Found::Own(at) => self.own_table(at),
            Found::Builtin(number) => self.builtin_table(number),
        }
    }

    /// What a name means: as it is, and then in the other forms in which the provider writes it.
    fn resolve(&self, provider: &str, model: &str) -> Option<Found> {
        let mut forms = names::other_forms(provider, model);
        self.lookup(provider, model).or_else(|| forms.find_map(|form| self.lookup(provider, &form)))
    }

    /// By the name, by a pattern, by the name without a date.
    fn lookup(&self, provider: &str, name: &str) -> Option<Found> {
        let stem = || self.exact(provider, names::without_date(name)?);
        self.exact(provider, name).or_else(|| self.by_beginning(provider, name)).or_else(stem)
    }

    fn exact(&self, provider: &str, name: &str) -> Option<Found> {
        if !self.own.names.contains_key(provider) {
            return self.find(provider, name).map(Found::Builtin);
        }
        if let Some(at) = self.own_named(provider, name) {
            return Some(Found::Own(at));
        }
        let number = self.find(provider, name)?;
        // The user may have priced the undated form of this very name, or the model itself.
        let stem = names::without_date(name).filter(|stem| self.find(provider, stem) == Some(number));
        let own = stem.and_then(|stem| self.own_named(provider, stem));
        Some(own.map_or_else(|| self.of_canonical(provider, number), Found::Own))
    }

    fn by_beginning(&self, provider: &str, name: &str) -> Option<Found> {
        let own = self.own.names.get(provider).and_then(|names| {
            let mut matching =
                names.beginnings.iter().filter(|(beginning, _)| name.starts_with(&**beginning));
            matching.find(|(_, at)| self.own_table(*at).is_some())
        });
        let builtin = self.catalogue.and_then(|catalogue| catalogue.beginning(provider, name));
        match (own, builtin) {
            (Some((mine, at)), Some((theirs, _))) if mine.len() >= theirs.len() => Some(Found::Own(*at)),
            (_, Some((_, number))) => Some(self.of_canonical(provider, number)),
            (Some((_, at)), None) => Some(Found::Own(*at)),
            (None, None) => None,
        }
    }

    /// A built-in model, or what the user says about it.
    fn of_canonical(&self, provider: &str, number: usize) -> Found {
        let model = self.model_name(number);
        model.and_then(|model| self.own_named(provider, model)).map_or(Found::Builtin(number), Found::Own)
    }

    /// The user's model of exactly this name, if it has prices.
    fn own_named(&self, provider: &str, name: &str) -> Option<usize> {
        let at = *self.own.names.get(provider)?.exact.get(name)?;
        self.own_table(at).map(|_| at)
    }

    fn find(&self, provider: &str, name: &str) -> Option<usize> {
        self.catalogue.and_then(|catalogue| catalogue.find(provider, name))
    }

    /// The built-in model whose own name this is.
    fn canonical(&self, provider: &str, name: &str) -> Option<usize> {
        self.find(provider, name).filter(|number| self.model_name(*number) == Some(name))
    }

    fn model_name(&self, number: usize) -> Option<&'static str> {
        self.catalogue.and_then(|catalogue| catalogue.names(number)).and_then(|(_, mut names)| names.next())
    }

    // --- tables ---

    fn own_table(&self, at: usize) -> Option<&Table> {
        let model = self.own.models.get(at)?;
        let made = || self.sheet_of_own(model).and_then(|sheet| sheet.compile());
        model.table.get_or_init(|| made().ok().flatten().map(Box::new)).as_deref()
    }

    fn builtin_table(&self, number: usize) -> Option<&Table> {
        let made = || self.sheet_of_builtin(number).compile().ok().flatten().map(Box::new);
        self.tables.get(number)?.get_or_init(made).as_deref()
    }

    fn builtin_rows(&self, number: usize) -> Vec<PriceRow> {
        // A test reads all of them; a line that cannot be read does not get here.
        self.catalogue.and_then(|catalogue| catalogue.rows(number).ok()).unwrap_or_default()
    }

    fn sheet_of_builtin(&self, number: usize) -> Sheet {
        let mut sheet = Sheet::default();
        sheet.add(self.builtin_rows(number), 0);
        if let Some((provider, mut names)) = self.catalogue.and_then(|catalogue| catalogue.names(number)) {
            sheet.add(self.own.discounts(provider, names.next().unwrap_or("")), 0);
        }
        sheet
    }

    fn sheet_of_own(&self, own: &OwnModel) -> Result<Sheet, BookError> {
        let mut sheet = Sheet::default();
        sheet.add(self.own.rows_at(&own.rows), 2);
        if let Some(number) = self.canonical(&own.provider, &own.model) {
            sheet.add(self.builtin_rows(number), 0);
        }
        if !sheet.has_builtin() {
            sheet.add(self.base_rows(&own.provider, &own.model), 1);
        }
        sheet.add(self.own.discounts(&own.provider, &own.model), 0);
        Ok(sheet)
    }

    /// The rows of the model that `model` is another name of.
    fn base_rows(&self, provider: &str, model: &str) -> Vec<PriceRow> {
        if let Some(number) = self.find(provider, model) {
            return self.rows_named(provider, self.model_name(number).unwrap_or(model));
        }
        let Some(stem) = names::without_date(model) else { return Vec::new() };
        let rows = self.rows_named(provider, stem);
        match self.find(provider, stem).and_then(|number| self.model_name(number)) {
            Some(model) if rows.is_empty() => self.rows_named(provider, model),
            _ => rows,
        }
    }

    /// The rows that give exactly this name.
    fn rows_named(&self, provider: &str, model: &str) -> Vec<PriceRow> {
        let own = self.own.names.get(provider).and_then(|names| names.exact.get(model));
        let own = own.and_then(|at| self.own.models.get(*at)).map_or(&[][..], |own| &own.rows);
        let mut rows: Vec<PriceRow> = self.own.rows_at(own).collect();
        rows.extend(
            self.canonical(provider, model).map(|number| self.builtin_rows(number)).unwrap_or_default(),
        );
        rows
    }
}

/// What a name means.
#[derive(Clone, Copy)]
enum Found {
    /// A model of the user's rows, by its place.
    Own(usize),
    /// A built-in model, by its number.
    Builtin(usize),
}

impl Own {
    fn new(mut rows: Vec<PriceRow>) -> Result<Self, BookError> {
        rows.sort_by(|a, b| a.id.cmp(&b.id));
        let twins = rows.iter().zip(rows.iter().skip(1)).find(|(a, b)| a.id == b.id);
        if let Some((twin, _)) = twins {
            return Err(BookError::DuplicateId(Arc::clone(&twin.id)));
        }
        rows.shrink_to_fit();
        let mut by_model: BTreeMap<(&Arc<str>, &Arc<str>), Vec<usize>> = BTreeMap::new();
        let mut discounts = Vec::new();
        for (at, row) in rows.iter().enumerate() {
            if matches!(row.term, Term::Discount(_)) && row.model.ends_with('*') {
                discounts.push(at);
            } else {
                by_model.entry((&row.provider, &row.model)).or_default().push(at);
            }
        }
        let mut models = Vec::with_capacity(by_model.len());
        let mut names: HashMap<Arc<str>, OwnNames> = HashMap::new();
        for ((provider, model), rows) in by_model {
            let of_provider = names.entry(Arc::clone(provider)).or_default();
            match model.strip_suffix('*') {
                Some(beginning) => of_provider.beginnings.push((Arc::from(beginning), models.len())),
                None => {
                    of_provider.exact.insert(Arc::clone(model), models.len());
                }
            }
            let (provider, model) = (Arc::clone(provider), Arc::clone(model));
            models.push(OwnModel { provider, model, rows, table: Lazy::new() });
        }
        for names in names.values_mut() {
            names.beginnings.sort_by(|(a, _), (b, _)| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        }
        Ok(Self { rows, models, names, discounts })
    }

    fn rows_at<'a>(&'a self, places: &'a [usize]) -> impl Iterator<Item = PriceRow> + 'a {
        places.iter().filter_map(|at| self.rows.get(*at).cloned())
    }

    /// The discounts that hold for `model` by a pattern.
    fn discounts<'a>(&'a self, provider: &'a str, model: &'a str) -> impl Iterator<Item = PriceRow> + 'a {
        let matching = move |row: &PriceRow| {
            let beginning = row.model.strip_suffix('*').unwrap_or(&row.model);
            *row.provider == *provider && model.starts_with(beginning)
        };
        self.rows_at(&self.discounts).filter(matching)
    }
}
