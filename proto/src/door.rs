//! How many may be connected to a server at a time, and how many of them from one address.
//!
//! A place is taken for each connection and given back when it ends. No single address can take all places, so whoever
//! floods a server from one host leaves room for the others.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

/// Counts connections. Shared by all of one server.
#[derive(Debug)]
pub struct Door {
    places_max: usize,
    each_max: usize,
    taken: Mutex<BTreeMap<IpAddr, usize>>,
}

/// A place that was taken. Given back when dropped.
#[derive(Debug)]
pub struct Place {
    door: Arc<Door>,
    address: IpAddr,
}

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// All places are taken.
    #[error("there are {0} connections already, and these are the most")]
    Everywhere(usize),
    /// The address has as many as one may have.
    #[error("this address has {0} connections already, and these are the most of one address")]
    Address(usize),
}

impl Door {
    /// A door to so many places, of which an address may have three quarters.
    pub fn new(places_max: usize) -> Arc<Door> {
        let each_max = places_max - places_max / 4;
        Arc::new(Door { places_max, each_max, taken: Mutex::default() })
    }

    /// Takes a place.
    ///
    /// # Errors
    ///
    /// When there is none; the error says how many there are.
    pub fn enter(self: &Arc<Door>, address: IpAddr) -> Result<Place, Full> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.values().sum::<usize>() >= self.places_max {
            return Err(Full::Everywhere(self.places_max));
        }
        let own = taken.entry(address).or_default();
        if *own >= self.each_max {
            return Err(Full::Address(self.each_max));
        }
        *own += 1;
        Ok(Place { door: self.clone(), address })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.door.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = taken.get_mut(&self.address) {
            *own -= 1;
            if *own == 0 {
                taken.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_leaves_room_for_others() {
        let (door, bad, good) = (Door::new(8), IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let mut places: Vec<Place> = (0..6).map(|_| door.enter(bad).unwrap()).collect();
        assert_eq!(door.enter(bad).unwrap_err(), Full::Address(6));
        let _others = [door.enter(good).unwrap(), door.enter(good).unwrap()];
        assert_eq!(door.enter(good).unwrap_err(), Full::Everywhere(8));
        places.pop();
        assert!(door.enter(bad).is_ok());
        drop(places);
        assert_eq!(door.taken.lock().unwrap().len(), 1, "an address without connections is forgotten");
    }
}
