//! What a store needs to know to connect, and the settings of its sessions.

use std::time::Duration;

use holdfast_core::port::store::StoreError;
use sqlx::postgres::PgConnectOptions;

use crate::format;

/// A read model that is written in the commit.
#[derive(Clone, Copy, Debug)]
pub struct View {
    /// For people.
    pub name: &'static str,
    /// The kind of aggregate it describes.
    pub kind: &'static str,
    /// One `insert … on conflict … do update` with one parameter, `$1`: a jsonb array of the rows, each with
    /// the aggregate's key added as `_key`. It becomes part of the commit's statement, so it stands alone: no
    /// semicolon, no second parameter. For example `insert into orders_view select * from
    /// jsonb_populate_recordset(null::orders_view, $1) on conflict (id) do update set …`.
    pub upsert: &'static str,
}

/// How to reach one context's store.
#[derive(Clone, Debug)]
pub struct Config {
    /// `postgres://…`
    pub url: String,
    /// The context's schema.
    pub schema: String,
    /// Act as this role. Unneeded where the URL's own user is confined to the schema already.
    pub role: Option<String>,
    /// Shown in `pg_stat_activity`.
    pub application: String,
    /// The context's read models.
    pub views: Vec<View>,
    /// The largest number of commits at once.
    pub committers: usize,
    /// The largest number of reads at once.
    pub readers: usize,
    /// A wait for a lock ends after this: a fence row held by a zombie.
    pub lock_timeout: Duration,
    /// The server ends a transaction whose client is silent for so long. Longer than any pause of ours
    /// between two statements; shorter than [`Self::lock_timeout`], so that one wait outlasts a zombie.
    pub idle_in_transaction_timeout: Duration,
    /// A statement ends after this.
    pub statement_timeout: Duration,
    /// Waiting for a connection ends after this.
    pub connect_timeout: Duration,
}

impl Config {
    /// With the usual limits.
    pub fn new(url: impl Into<String>, schema: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            schema: schema.into(),
            role: None,
            application: "holdfast".into(),
            views: Vec::new(),
            committers: 4,
            readers: 4,
            lock_timeout: Duration::from_secs(4),
            idle_in_transaction_timeout: Duration::from_secs(3),
            statement_timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(5),
        }
    }

    /// Acts as `role`.
    #[must_use]
    pub fn with_role(mut self, role: impl Into<String>) -> Self {
        self.role = Some(role.into());
        self
    }

    /// Writes these read models.
    #[must_use]
    pub fn with_views(mut self, views: impl IntoIterator<Item = View>) -> Self {
        self.views.extend(views);
        self
    }

    /// After this long a client gives a statement up that the server should have ended itself: the network is
    /// gone.
    pub(crate) fn client_timeout(&self) -> Duration {
        self.statement_timeout + Duration::from_secs(2)
    }

    /// The connection, with the session's settings in the startup packet: they hold from the first statement
    /// on.
    pub(crate) fn options(&self) -> Result<PgConnectOptions, StoreError> {
        let ms = |duration: Duration| duration.as_millis().to_string();
        let options: PgConnectOptions = plain(&self.url)?
            .application_name(&self.application)
            // Each combination of parts is one prepared statement.
            .statement_cache_capacity(256)
            .options([
                ("search_path", name(&self.schema)?.to_owned()),
                (format::SAYS.0, format::SAYS.1.to_string()),
                ("lock_timeout", ms(self.lock_timeout)),
                ("statement_timeout", ms(self.statement_timeout)),
                ("idle_in_transaction_session_timeout", ms(self.idle_in_transaction_timeout)),
                ("transaction_timeout", ms(self.statement_timeout * 3)),
                // Our statements are all many small index look-ups. Compiling them costs more than running
                // them.
                ("jit", "off".to_owned()),
                // They have the same best plan whatever the arrays hold, so it is made once a session.
                ("plan_cache_mode", "force_generic_plan".to_owned()),
                // That plan outlives the table sizes it was made for. One that hashes or sorts a whole table
                // is right only while the table is tiny, so the planner is not given the choice.
                ("enable_hashjoin", "off".to_owned()),
                ("enable_mergejoin", "off".to_owned()),
                ("enable_seqscan", "off".to_owned()),
            ]);
        match &self.role {
            None => Ok(options),
            Some(role) => Ok(options.options([("role", name(role)?)])),
        }
    }
}

/// The URL alone.
pub(crate) fn plain(url: &str) -> Result<PgConnectOptions, StoreError> {
    use sqlx::ConnectOptions as _;
    let options: PgConnectOptions =
        url.parse().map_err(|error| StoreError::Broken(format!("not a Postgres URL: {error}")))?;
    Ok(options.disable_statement_logging())
}

/// Lets through what needs no quotes in SQL: schemas and roles are named by us, not by the world.
pub(crate) fn name(text: &str) -> Result<&str, StoreError> {
    let first = text.starts_with(|c: char| c.is_ascii_lowercase() || c == '_');
    let rest = text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    // 63 bytes is Postgres' limit for names.
    if first && rest && text.len() <= 63 {
        Ok(text)
    } else {
        Err(StoreError::Broken(format!("{text:?} is no schema or role name: lower-case letters, digits and _ only")))
    }
}
