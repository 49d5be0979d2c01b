//! Skus as others write them: in messages, keys and questions.
//!
//! Invariant: an ill-formed one is refused in the same words wherever it comes in. Deliberately absent: what
//! is well-formed, which is the domain's.

use holdfast_core::disposition::Refused;
use holdfast_inventory_domain::Sku;

/// A well-formed sku.
pub(crate) fn sku_or_refused(field: &str, text: &str) -> Result<Sku, Refused> {
    Sku::new(text).map_err(|_| Refused::invalid(field, format!("{field} is not 1-64 characters of [A-Za-z0-9._-]")))
}
