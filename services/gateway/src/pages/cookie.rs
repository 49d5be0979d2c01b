//! The cookie in which a browser keeps its token.
//!
//! Invariant: scripts can't read it, other sites' forms don't send it, and it leaves this machine only over
//! TLS.

use http::{HeaderMap, HeaderValue, header};

const NAME: &str = "holdfast_token";

/// Sign-out.
pub(super) const CLEARING: &str = "holdfast_token=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax";

/// The token that a browser sends.
pub(super) fn token(headers: &HeaderMap) -> Option<&str> {
    let sent = headers.get_all(header::COOKIE).into_iter().filter_map(|value| value.to_str().ok());
    sent.flat_map(|line| line.split(';')).find_map(|pair| {
        let (name, value) = pair.trim().split_once('=')?;
        (name == NAME && !value.is_empty()).then_some(value)
    })
}

/// Keeps `token` until the browser is closed; nothing if it is none that a cookie can hold.
pub(super) fn setting(token: &str, headers: &HeaderMap) -> Option<HeaderValue> {
    let can_be_held = token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte));
    let secure = if is_this_machine(headers) { "" } else { "; Secure" };
    let cookie = format!("{NAME}={token}; Path=/; HttpOnly; SameSite=Lax{secure}");
    HeaderValue::try_from(cookie).ok().filter(|_| can_be_held)
}

/// Whether it was asked for as this machine, where there may be no TLS.
fn is_this_machine(headers: &HeaderMap) -> bool {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    name == "localhost" || name == "127.0.0.1" || name == "[::1]"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(pairs: &[(header::HeaderName, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn what_is_kept_is_what_comes_back() {
        let headers = from(&[(header::COOKIE, "theme=dark; holdfast_token=a.b-c_d; x=y")]);
        assert_eq!(token(&headers), Some("a.b-c_d"));
        assert_eq!(token(&from(&[(header::COOKIE, "holdfast_token=; other_holdfast_token=a")])), None);
    }

    #[test]
    fn it_leaves_this_machine_only_over_tls() {
        let at = |host| setting("a.b.c", &from(&[(header::HOST, host)])).unwrap();
        assert!(at("shop.example").to_str().unwrap().ends_with("HttpOnly; SameSite=Lax; Secure"));
        assert!(!at("127.0.0.1:8000").to_str().unwrap().contains("Secure"));
        assert!(at("127.0.0.1.evil.example").to_str().unwrap().contains("Secure"));
        assert!(setting("a; Domain=evil.example", &HeaderMap::new()).is_none());
    }
}
