//! A few things in the order of their names.
//!
//! Owns a sorted vector. For what is looked up often, changed seldom and never
//! many (listening sockets, services, plugins): there it does what a tree does,
//! with a tenth of its code.

/// Things by their names, in the names' order.
#[derive(Clone, Debug)]
pub struct Roster<K, T>(Vec<(K, T)>);

impl<K, T> Default for Roster<K, T> {
    fn default() -> Self {
        Roster(Vec::new())
    }
}

impl<K: Ord + Copy, T> FromIterator<(K, T)> for Roster<K, T> {
    fn from_iter<I: IntoIterator<Item = (K, T)>>(things: I) -> Self {
        // Sorted at once: to put many in one by one would move the others each time.
        let mut all: Vec<(K, T)> = things.into_iter().collect();
        all.sort_by_key(|(name, _)| *name);
        all.dedup_by(|later, earlier| {
            let same = later.0 == earlier.0;
            if same {
                std::mem::swap(later, earlier);
            }
            same
        });
        Roster(all)
    }
}

impl<K: Ord + Copy, T> Roster<K, T> {
    fn place(&self, name: K) -> Result<usize, usize> {
        self.0.binary_search_by(|(known, _)| known.cmp(&name))
    }

    /// The thing of this name.
    pub fn get(&self, name: K) -> Option<&T> {
        self.place(name).ok().map(|place| &self.0[place].1)
    }

    /// Whether there is one of this name.
    pub fn has(&self, name: K) -> bool {
        self.place(name).is_ok()
    }

    /// The thing of this name.
    pub fn get_mut(&mut self, name: K) -> Option<&mut T> {
        self.place(name).ok().map(|place| &mut self.0[place].1)
    }

    /// Puts a thing in, in place of the one that had its name.
    pub fn put(&mut self, name: K, thing: T) {
        match self.place(name) {
            Ok(place) => self.0[place].1 = thing,
            Err(place) => self.0.insert(place, (name, thing)),
        }
    }

    /// Takes a thing out.
    pub fn remove(&mut self, name: K) -> Option<T> {
        self.place(name).ok().map(|place| self.0.remove(place).1)
    }

    /// Keeps only those for whom `keep` says so.
    pub fn retain(&mut self, mut keep: impl FnMut(K, &mut T) -> bool) {
        self.0.retain_mut(|(name, thing)| keep(*name, thing));
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (K, &T)> {
        self.0.iter().map(|(name, thing)| (*name, thing))
    }

    /// All of them, to be changed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (K, &mut T)> {
        self.0.iter_mut().map(|(name, thing)| (*name, thing))
    }

    /// Takes everything out.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn things_stay_in_order_and_one_name_has_one_thing() {
        let mut roster = Roster::default();
        let things = [(7, 'g'), (2, 'b'), (5, 'x'), (5, 'e')];
        for (name, thing) in things {
            roster.put(name, thing);
        }
        let all = |roster: &Roster<u32, char>| roster.iter().map(|(name, thing)| (name, *thing)).collect::<Vec<_>>();
        assert_eq!(all(&roster), [(2, 'b'), (5, 'e'), (7, 'g')]);
        assert_eq!(all(&things.into_iter().collect()), all(&roster));
        assert!(roster.has(5) && !roster.has(6));
        *roster.get_mut(2).unwrap() = 'B';
        assert_eq!((roster.get(2), roster.get(3), roster.get(5)), (Some(&'B'), None, Some(&'e')));
        roster.retain(|name, _| name != 2);
        roster.iter_mut().for_each(|(_, thing)| thing.make_ascii_uppercase());
        assert_eq!(all(&roster), [(5, 'E'), (7, 'G')]);
        assert_eq!((roster.remove(5), roster.remove(5)), (Some('E'), None));
        assert_eq!(all(&roster), [(7, 'G')]);
        roster.clear();
        assert_eq!(roster.get(7), None);
    }
}
