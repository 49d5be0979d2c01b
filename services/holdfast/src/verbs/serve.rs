//! `holdfast serve`: contexts as a production process.

use holdfast_platform::{
    Config, Context, Health, Shutdown,
    metrics::Metrics,
    shutdown::{Plan, Signals},
    telemetry,
};

use crate::{
    cli::Serve,
    compose::{App, Listeners, Parts, Wrap},
    failure::Failure,
    infrastructure::Infrastructure,
    verbs::migrate,
};

/// Serves until a signal; then drains.
pub async fn run(config: Config, serve: Serve) -> Result<u8, Failure> {
    let contexts = migrate::any_contexts(&serve.contexts)?;
    let is_node = contexts.iter().any(|context| context.owns_data());
    let at = if is_node { Infrastructure::configured(&config)? } else { Infrastructure::none() };
    let listeners = Listeners::bind(&config, &contexts).await?;
    let process = Process::begin(&config, &contexts)?;
    let served = process.run(&config, &at, &contexts, listeners, async |app| {
        let edge = app.edge.map(|address| address.to_string());
        tracing::info!(grpc = %app.grpc, http = %app.http, edge, "serving");
        std::future::pending::<Result<(), Failure>>().await
    });
    Ok(served.await?.0)
}

/// What every serving verb sets up once.
pub struct Process {
    metrics: Metrics,
    health: Health,
    shutdown: Shutdown,
    signals: Signals,
    telemetry: telemetry::Guard,
    wrap: Wrap,
}

impl Process {
    /// Telemetry, metrics and signals. Once per process.
    pub fn begin(config: &Config, contexts: &[Context]) -> Result<Self, Failure> {
        let signals = Signals::listen().map_err(|error| Failure::Check(error.into()))?;
        let telemetry = telemetry::init(&telemetry::Settings::new(config, contexts)).map_err(Failure::usage)?;
        let metrics = Metrics::install().map_err(|error| Failure::Check(error.into()))?;
        holdfast_core::invariant::on_violation(|invariant, detail| {
            let name = holdfast_runtime::telemetry::INVARIANT_VIOLATIONS_TOTAL;
            metrics::counter!(name, "invariant" => invariant.id()).increment(1);
            tracing::error!(invariant = invariant.id(), detail, "invariant violated");
        });
        let health = Health::new();
        let shutdown = Shutdown::new(health.clone());
        Ok(Self { metrics, health, shutdown, signals, telemetry, wrap: |_, ports| ports })
    }

    /// Replaces ports, for tests that break something on purpose.
    #[must_use]
    pub fn wrapping(self, wrap: Wrap) -> Self {
        Self { wrap, ..self }
    }

    /// Starts `contexts` and runs `job` beside them, until it returns or a signal asks to leave; then drains.
    ///
    /// Returns the exit code of leaving, and what the job returned unless a signal came before.
    pub async fn run<T>(
        self,
        config: &Config,
        at: &Infrastructure,
        contexts: &[Context],
        listeners: Listeners,
        job: impl AsyncFnOnce(&App) -> Result<T, Failure>,
    ) -> Result<(u8, Option<T>), Failure> {
        let Self { metrics, health, shutdown, signals, telemetry, wrap } = self;
        let parts = Parts { metrics, health, shutdown: shutdown.clone(), listeners, wrap };
        let work = async {
            let app = tokio::select! {
                app = App::start(config, at, contexts, parts) => app?,
                () = shutdown.leaving().cancelled() => return Ok(None),
            };
            let done = tokio::select! {
                done = job(&app) => Some(done),
                () = shutdown.stopping().cancelled() => None,
            };
            app.stop().await;
            done.transpose()
        };
        let plan = Plan::new(config.shutdown_delay);
        let (exit, result) = shutdown.run(plan, signals, work, move || telemetry.flush()).await;
        Ok((exit.code(), result.unwrap_or(Ok(None))?))
    }
}
