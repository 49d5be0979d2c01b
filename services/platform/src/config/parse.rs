//! From text to values, one small parser a kind.
//!
//! Invariant: a parser's error is the sentence that completes "allowed is …"; it never repeats the value,
//! which may hold a secret.
//!
//! Deliberately absent: which key wants which parser.

use std::{fmt, ops::RangeInclusive, str::FromStr, time::Duration};

use url::Url;

type Parsed<T> = Result<T, String>;

/// `15m`, `250ms`, `1h 30m`; zero may be written `0`.
pub(super) fn duration(range: RangeInclusive<Duration>) -> impl Fn(&str) -> Parsed<Duration> {
    move |text| {
        let parsed = if text == "0" { Ok(Duration::ZERO) } else { humantime::parse_duration(text) };
        parsed.ok().filter(|value| range.contains(value)).ok_or_else(|| {
            format!(
                "a duration such as `250ms` or `15m`, from {} to {}",
                humantime::format_duration(*range.start()),
                humantime::format_duration(*range.end())
            )
        })
    }
}

/// A whole number.
pub(super) fn number<T>(range: RangeInclusive<T>) -> impl Fn(&str) -> Parsed<T>
where
    T: FromStr + PartialOrd + fmt::Display,
{
    move |text| {
        text.parse()
            .ok()
            .filter(|value| range.contains(value))
            .ok_or_else(|| format!("a whole number from {} to {}", range.start(), range.end()))
    }
}

/// Bytes: `1048576`, `64MiB`, `1GiB`.
pub(super) fn bytes(range: RangeInclusive<u64>) -> impl Fn(&str) -> Parsed<u64> {
    move |text| {
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let unit = match text[digits.len()..].to_ascii_lowercase().as_str() {
            "" | "b" => Some(1),
            "kib" | "k" => Some(1 << 10),
            "mib" | "m" => Some(1 << 20),
            "gib" | "g" => Some(1_u64 << 30),
            _ => None,
        };
        unit.and_then(|unit| digits.trim().parse::<u64>().ok()?.checked_mul(unit))
            .filter(|value| range.contains(value))
            .ok_or_else(|| {
                format!("a size such as `256MiB` or a number of bytes, from {} to {}", range.start(), range.end())
            })
    }
}

/// A share between 0 and 1.
pub(super) fn ratio(text: &str) -> Parsed<f64> {
    text.parse().ok().filter(|value| (0.0..=1.0).contains(value)).ok_or_else(|| "a number from 0 to 1".to_owned())
}

/// One of several words.
pub(super) fn one_of<T: Copy>(words: &'static [(&'static str, T)]) -> impl Fn(&str) -> Parsed<T> {
    move |text| {
        words
            .iter()
            .find_map(|(word, value)| (*word == text).then_some(*value))
            .ok_or_else(|| words.iter().map(|(word, _)| format!("`{word}`")).collect::<Vec<_>>().join(" or "))
    }
}

/// Something that only two know.
pub(super) fn secret(text: &str) -> Parsed<Secret> {
    let fits = text.len() <= 4096 && text.bytes().all(|byte| byte.is_ascii_graphic());
    fits.then(|| Secret(text.to_owned())).ok_or_else(|| "printable characters without blanks".to_owned())
}

/// Three upper-case letters.
pub(super) fn currency_code(text: &str) -> Parsed<String> {
    let fits = text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_uppercase());
    fits.then(|| text.to_owned()).ok_or_else(|| "a code of ISO 4217 such as `EUR`".to_owned())
}

/// An address to listen on.
pub(super) fn listen(text: &str) -> Parsed<std::net::SocketAddr> {
    text.parse().map_err(|_| "an IP address and a port such as `0.0.0.0:9090` or `[::]:9090`".to_owned())
}

/// `host:port`.
pub(super) fn host_port(text: &str) -> Parsed<String> {
    let fits = text.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty()
            && (host.starts_with('[') && host.ends_with(']') || !host.contains(':'))
            && !host.contains(|c: char| c.is_whitespace() || c == '/' || c == ',')
            && port.parse::<u16>().is_ok_and(|port| port != 0)
    });
    fits.then(|| text.to_owned()).ok_or_else(|| "`host:port`".to_owned())
}

/// A name that Kafka takes for a group instance.
pub(super) fn instance_id(text: &str) -> Parsed<String> {
    let fits = (1..=249).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'));
    fits.then(|| text.to_owned()).ok_or_else(|| "1-249 characters of [A-Za-z0-9._-], e.g. `node-1`".to_owned())
}

/// `host:port[,host:port…]`.
pub(super) fn brokers(text: &str) -> Parsed<String> {
    let all = text.split(',').map(|one| host_port(one.trim())).collect::<Parsed<Vec<_>>>();
    all.map(|all| all.join(",")).map_err(|_| "`host:port`, several separated by commas".to_owned())
}

/// Where a gRPC server is.
pub(super) fn endpoint(text: &str) -> Parsed<String> {
    Url::parse(text)
        .ok()
        .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host() && url.password().is_none())
        .map(|_| text.trim_end_matches('/').to_owned())
        .ok_or_else(|| "`http://host:port` or `https://host:port`".to_owned())
}

/// A path that exists as a file.
pub(super) fn file(text: &str) -> Parsed<std::path::PathBuf> {
    let path = std::path::PathBuf::from(text);
    if path.is_file() { Ok(path) } else { Err("the path of a readable file".to_owned()) }
}

/// A connection URL; shows itself without its password.
#[derive(Clone, PartialEq, Eq)]
pub struct DatabaseUrl(String);

impl DatabaseUrl {
    /// The URL with its password, for the driver alone.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&mask_url(&self.0))
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

pub(super) fn database_url(text: &str) -> Parsed<DatabaseUrl> {
    Url::parse(text)
        .ok()
        .filter(|url| matches!(url.scheme(), "postgres" | "postgresql"))
        .map(|_| DatabaseUrl(text.to_owned()))
        .ok_or_else(|| "`postgres://user:password@host:port/database`".to_owned())
}

/// A text that only its two ends may know.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The text, to be sent or compared, never shown.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

/// A token that fits a header and can't be guessed.
pub(super) fn token(text: &str) -> Parsed<Secret> {
    let fits = (16..=512).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    fits.then(|| Secret(text.to_owned())).ok_or_else(|| "16 to 512 printable characters without blanks".to_owned())
}

/// What stands in a secret's place.
pub const MASK: &str = "****";

/// The URL without passwords; wholly masked when it can't be read.
pub(super) fn mask_url(text: &str) -> String {
    let Ok(mut url) = Url::parse(text) else { return MASK.to_owned() };
    if url.password().is_some() && url.set_password(Some(MASK)).is_err() {
        return MASK.to_owned();
    }
    if url.query_pairs().any(|(name, _)| is_secret(&name)) {
        let pairs: Vec<(String, String)> = url
            .query_pairs()
            .map(|(name, value)| {
                let shown = if is_secret(&name) { MASK.to_owned() } else { value.into_owned() };
                (name.into_owned(), shown)
            })
            .collect();
        url.query_pairs_mut().clear().extend_pairs(pairs);
    }
    url.into()
}

/// Whether a property or parameter of this name holds a secret.
fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["password", "secret", "token", "key", "jaas", "oauthbearer.config", "credential"]
        .iter()
        .any(|part| name.contains(part))
        && !matches!(name.as_str(), "ssl.key.location")
}

/// librdkafka properties, in the order given.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Properties(Vec<(String, String)>);

impl Properties {
    /// Name and value, secrets included, for the client alone.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

impl fmt::Display for Properties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown: Vec<String> =
            self.iter().map(|(name, value)| format!("{name}={}", if is_secret(name) { MASK } else { value })).collect();
        f.write_str(&shown.join(","))
    }
}

impl fmt::Debug for Properties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Properties on which exactly-once and order rest; Holdfast sets them itself.
const OWNED: &[&str] = &[
    "bootstrap.servers",
    "metadata.broker.list",
    "group.id",
    "group.protocol",
    "group.instance.id",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "auto.offset.reset",
    "enable.idempotence",
    "enable.gapless.guarantee",
    "message.timeout.ms",
    "delivery.timeout.ms",
    "transactional.id",
    "partition.assignment.strategy",
];

/// `k=v` separated by newlines, or by commas where there is no newline. A comma's piece without `=` belongs
/// to the value before it (`debug=broker,topic`); a value that holds `,x=` needs the form with newlines.
pub(super) fn properties(text: &str) -> Parsed<Properties> {
    let lines = text.contains('\n');
    let mut all: Vec<(String, String)> = Vec::new();
    for piece in text.split(if lines { '\n' } else { ',' }).map(str::trim).filter(|piece| !piece.is_empty()) {
        match (piece.split_once('='), all.last_mut()) {
            (Some((name, value)), _) => {
                let name = name.trim();
                if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')) {
                    return Err("`name=value`, separated by newlines or commas".to_owned());
                }
                if OWNED.contains(&name) {
                    return Err(format!("any librdkafka property but `{name}`, which Holdfast sets itself"));
                }
                all.push((name.to_owned(), value.trim().to_owned()));
            }
            (None, Some((_, value))) if !lines => {
                value.push(',');
                value.push_str(piece);
            }
            (None, _) => return Err("`name=value`, separated by newlines or commas".to_owned()),
        }
    }
    Ok(Properties(all))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_humane_and_bounded() {
        let parse = duration(Duration::ZERO..=Duration::from_hours(1));
        assert_eq!(parse("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse("15m"), Ok(Duration::from_mins(15)));
        assert_eq!(parse("0"), Ok(Duration::ZERO));
        for bad in ["", "15", "-1s", "2h", "soon"] {
            assert!(parse(bad).unwrap_err().contains("250ms"), "{bad}");
        }
    }

    #[test]
    fn sizes_take_binary_units() {
        let parse = bytes(1..=u64::MAX);
        assert_eq!(parse("1024"), Ok(1024));
        assert_eq!(parse("2 MiB"), Ok(2 << 20));
        assert_eq!(parse("1GiB"), Ok(1 << 30));
        for bad in ["", "MiB", "1.5GiB", "-1", "99999999999GiB", "5XiB"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_comma_without_an_equals_sign_belongs_to_the_value() {
        let all = properties("security.protocol=SASL_SSL, debug=broker,topic,sasl.username=me").unwrap();
        let all: Vec<_> = all.iter().collect();
        assert_eq!(all, [("security.protocol", "SASL_SSL"), ("debug", "broker,topic"), ("sasl.username", "me")]);
        let lines = properties("sasl.password=a,b=c\nsasl.username=me\n").unwrap();
        assert_eq!(lines.iter().next(), Some(("sasl.password", "a,b=c")));
    }

    #[test]
    fn properties_that_carry_an_invariant_are_refused() {
        assert!(properties("enable.auto.commit=true").unwrap_err().contains("enable.auto.commit"));
        assert!(properties("nonsense").is_err());
        assert!(properties("a b=c").is_err());
    }

    #[test]
    fn secrets_never_show() {
        let shown =
            properties("sasl.password=hunter2,ssl.key.pem=hunter2,ssl.key.location=/k,sasl.username=me").unwrap();
        assert_eq!(shown.to_string(), "sasl.password=****,ssl.key.pem=****,ssl.key.location=/k,sasl.username=me");
        assert_eq!(format!("{:?}", database_url("postgres://u:hunter2@h/d").unwrap()), "postgres://u:****@h/d");
        assert_eq!(mask_url("postgres://u@h/d?password=hunter2&x=1"), "postgres://u@h/d?password=****&x=1");
        assert_eq!(mask_url("postgres//u:hunter2@h"), "****");
    }

    #[test]
    fn addresses_need_a_host_and_a_port() {
        assert!(host_port("node-1:9090").is_ok());
        assert!(host_port("[::1]:9090").is_ok());
        for bad in ["node-1", ":9090", "a:0", "a:b", "::1:90", "a b:1"] {
            assert!(host_port(bad).is_err(), "{bad}");
        }
        assert_eq!(brokers("a:1, b:2").as_deref(), Ok("a:1,b:2"));
        assert!(brokers("a:1,").is_err());
        assert!(endpoint("http://inventory:9090").is_ok());
        assert!(endpoint("inventory:9090").is_err());
    }
}
