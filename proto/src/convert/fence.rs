//! Fences.

use soloist_core::{
    fence::{Covers, FENCES_MAX, FenceOffer, FenceOrder, FenceSeen},
    ids::Generation,
    view::FenceView,
};

use super::{FieldError, name, unknown};
use crate::v1;

impl From<Covers> for v1::Covers {
    fn from(covers: Covers) -> Self {
        match covers {
            Covers::Database => v1::Covers::Database,
            Covers::Machine => v1::Covers::Machine,
        }
    }
}

/// What a fence covers; `None` where that is not said.
#[must_use]
pub fn covers(covers: v1::Covers) -> Option<Covers> {
    match covers {
        v1::Covers::Unspecified => None,
        v1::Covers::Database => Some(Covers::Database),
        v1::Covers::Machine => Some(Covers::Machine),
    }
}

fn said(given: v1::Covers) -> Result<Covers, FieldError> {
    covers(given).ok_or_else(|| unknown("covers"))
}

impl From<FenceOffer> for v1::FenceOffer {
    fn from(offer: FenceOffer) -> Self {
        let covers = v1::Covers::from(offer.covers).into();
        Self { node: offer.node.into(), covers, unarmed: offer.unarmed }
    }
}

impl TryFrom<v1::FenceOffer> for FenceOffer {
    type Error = FieldError;
    fn try_from(offer: v1::FenceOffer) -> Result<Self, FieldError> {
        let covers = said(offer.covers())?;
        Ok(Self { node: name("fences.node", offer.node)?, covers, unarmed: offer.unarmed })
    }
}

impl From<FenceOrder> for v1::FenceOrder {
    fn from(order: FenceOrder) -> Self {
        let covers = v1::Covers::from(order.covers).into();
        Self { node: order.node.into(), covers, generation: order.generation.0, up: order.up }
    }
}

impl TryFrom<v1::FenceOrder> for FenceOrder {
    type Error = FieldError;
    fn try_from(order: v1::FenceOrder) -> Result<Self, FieldError> {
        let covers = said(order.covers())?;
        let node = name("fences.node", order.node)?;
        Ok(Self { node, covers, generation: Generation(order.generation), up: order.up })
    }
}

impl From<FenceSeen> for v1::FenceSeen {
    fn from(seen: FenceSeen) -> Self {
        let (covers, generation) = (v1::Covers::from(seen.covers).into(), seen.generation.0);
        Self { node: seen.node.into(), covers, generation, done: seen.done, trouble: seen.trouble }
    }
}

impl TryFrom<v1::FenceSeen> for FenceSeen {
    type Error = FieldError;
    fn try_from(seen: v1::FenceSeen) -> Result<Self, FieldError> {
        let covers = said(seen.covers())?;
        let (node, generation) = (name("fenced.node", seen.node)?, Generation(seen.generation));
        Ok(Self { node, covers, generation, done: seen.done, trouble: seen.trouble })
    }
}

/// At most as many as one agent may speak of.
pub(super) fn few<T>(mut fences: Vec<T>) -> Vec<T> {
    fences.truncate(FENCES_MAX);
    fences
}

impl From<FenceView> for v1::FenceView {
    fn from(view: FenceView) -> Self {
        let covers = v1::Covers::from(view.covers).into();
        Self { covers, state: view.state, carrier: view.carrier.into(), detail: view.detail }
    }
}

impl TryFrom<v1::FenceView> for FenceView {
    type Error = FieldError;
    fn try_from(view: v1::FenceView) -> Result<Self, FieldError> {
        let covers = said(view.covers())?;
        let carrier = name("fences.carrier", view.carrier)?;
        Ok(Self { covers, state: view.state, carrier, detail: view.detail })
    }
}
