//! `holdfast actor get`: one live actor, asked of its owner, with what waits for it.

use std::time::Duration;

use holdfast_core::{KeyHash, Timestamp, epoch::PartitionRow, port::store::Store as _};
use holdfast_platform::{
    Config, Context,
    config::Secret,
    grpc::{Peer, client},
};
use holdfast_postgres::{PgStore, survey};
use holdfast_proto::admin::v1::{GetActorRequest, GetActorResponse, actor_service_client::ActorServiceClient};
use tonic::{Code, Status};

use crate::{admin, cli, compose, failure::Failure, infrastructure::Infrastructure, verbs::migrate};

/// A person waits.
const DEADLINE: Duration = Duration::from_secs(5);

/// Runs one of the verbs.
pub async fn run(config: &Config, verb: cli::Actor) -> Result<u8, Failure> {
    match verb {
        cli::Actor::Get(get) => {
            let found = find(config, &get).await?;
            if get.json {
                print_json(&found);
            } else {
                print(&found);
            }
            Ok(0)
        }
    }
}

/// What there is to know.
struct Found {
    asked: String,
    row: PartitionRow,
    answer: GetActorResponse,
    mail: Vec<survey::Mail>,
    timers: Vec<survey::Timer>,
}

async fn find(config: &Config, get: &cli::GetActor) -> Result<Found, Failure> {
    let [context] = migrate::contexts(&get.context)?[..] else {
        return Err(Failure::usage(anyhow::anyhow!("one context is wanted, e.g. `orders`")));
    };
    let token = config.require_admin_token()?;
    let settings = compose::database(config, &Infrastructure::none(), context)?;
    let store = PgStore::connect(settings).await.map_err(Failure::unreachable)?;
    let growth = store.growth().await.map_err(Failure::unreachable)?;
    let (_, count) = growth.current();
    let home = KeyHash::of(get.id.as_bytes()).home(count);
    let Some(row) = growth.rows.into_iter().find(|row| row.partition == home) else {
        return Err(Failure::Check(anyhow::anyhow!("nobody has ever served {context}")));
    };
    let asked = match &get.at {
        Some(address) => address.clone(),
        None if row.token.is_none() || row.released => {
            return Err(Failure::unreachable(anyhow::anyhow!("no node owns partition {home} of {context} now")));
        }
        None => row.address.clone(),
    };
    let answer = ask(config, token, &asked, context, get).await?;
    let kind = answer.actor.as_ref().map(|actor| actor.kind.clone()).unwrap_or_default();
    let mail = store.mail_of(&kind, &get.id, count).await.map_err(Failure::unreachable)?;
    let timers = store.timers_of(&kind, &get.id).await.map_err(Failure::unreachable)?;
    Ok(Found { asked, row, answer, mail, timers })
}

async fn ask(
    config: &Config,
    token: &Secret,
    address: &str,
    context: Context,
    get: &cli::GetActor,
) -> Result<GetActorResponse, Failure> {
    let scheme = if config.tls.is_some() { "https" } else { "http" };
    let settings = client::Settings { deadline: DEADLINE, ..client::Settings::default() };
    let peer = Peer::new("owner", &format!("{scheme}://{address}"), settings, config.tls.as_ref());
    let peer = peer.map_err(|error| Failure::usage(anyhow::Error::from(error).context(format!("`{address}`"))))?;
    let shown = format!("Bearer {}", token.expose());
    let shown: tonic::metadata::MetadataValue<_> = shown.parse().map_err(Failure::usage)?;
    let kind = get.kind.clone().unwrap_or_default();
    let wanted = GetActorRequest { context: context.to_string(), kind, id: get.id.clone() };
    let call = |stack| {
        let mut request = tonic::Request::new(wanted.clone());
        request.metadata_mut().insert(admin::AUTHORIZATION, shown.clone());
        async move { ActorServiceClient::new(stack).get_actor(request).await }
    };
    let answer = peer.call(call).await.map_err(|status| failure(address, &status))?;
    Ok(answer.into_inner())
}

fn failure(address: &str, status: &Status) -> Failure {
    let error = anyhow::anyhow!("{address}: {}", status.message());
    match status.code() {
        Code::NotFound | Code::FailedPrecondition => Failure::Check(error),
        Code::Unauthenticated | Code::PermissionDenied | Code::InvalidArgument => Failure::Usage(error),
        _ => Failure::Unreachable(error),
    }
}

fn lease(found: &Found) -> &'static str {
    let strong = holdfast_proto::read::v1::Consistency::Strong;
    let is_strong = found.answer.read.as_ref().is_some_and(|read| read.consistency() == strong);
    if is_strong { "held" } else { "not held" }
}

fn state(found: &Found) -> serde_json::Value {
    let text = found.answer.actor.as_ref().map_or("null", |actor| actor.state_json.as_str());
    serde_json::from_str(text).unwrap_or_default()
}

fn print_json(found: &Found) {
    let actor = found.answer.actor.clone().unwrap_or_default();
    let waiting = |mail: &survey::Mail| serde_json::json!({ "reason": mail.reason, "messages": mail.messages, "since": mail.since.rfc3339() });
    let timer = |timer: &survey::Timer| serde_json::json!({ "name": timer.name, "due": timer.due.rfc3339() });
    let object = serde_json::json!({
        "context": actor.context, "kind": actor.kind, "id": actor.id, "version": actor.version,
        "owner": found.row.address, "asked": found.asked, "partition": found.row.partition, "epoch": found.row.epoch.0,
        "lease": lease(found), "mailbox": found.mail.iter().map(waiting).collect::<Vec<_>>(),
        "timers": found.timers.iter().map(timer).collect::<Vec<_>>(), "state": state(found),
    });
    println!("{object}");
}

fn print(found: &Found) {
    let actor = found.answer.actor.clone().unwrap_or_default();
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    let mut row = |name: &str, value: String| _ = table.add_row([name.to_owned(), value]);
    let listed = |items: Vec<String>| if items.is_empty() { "-".to_owned() } else { items.join("\n") };
    let at = |at: Timestamp| at.rfc3339();
    row("actor", format!("{}/{}/{}", actor.context, actor.kind, actor.id));
    row("owner", format!("{} (partition {}, epoch {})", found.row.address, found.row.partition, found.row.epoch.0));
    row("lease", lease(found).to_owned());
    row("version", actor.version.to_string());
    let mail = found.mail.iter().map(|mail| format!("{} {}, since {}", mail.messages, mail.reason, at(mail.since)));
    row("mailbox", listed(mail.collect()));
    row("timers", listed(found.timers.iter().map(|timer| format!("{}, due {}", timer.name, at(timer.due))).collect()));
    row("state", serde_json::to_string_pretty(&state(found)).unwrap_or_default());
    println!("{table}");
}
