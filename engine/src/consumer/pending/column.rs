//! A column of numbers close to a straight line, kept as narrow differences to it.

/// Numbers `base + stride * i + difference(i)`, the stride being 0 or 1. Differences take as many
/// bytes as the largest of them needs; none at all while all are 0.
#[derive(Clone, Debug)]
pub(super) struct Column {
    base: i64,
    stride: i64,
    differences: Differences,
}

#[derive(Clone, Debug)]
enum Differences {
    Zero,
    Bytes2(Vec<u16>),
    Bytes4(Vec<u32>),
    Bytes8(Vec<i64>),
}

impl Column {
    /// An empty column of numbers that grow by one.
    pub(super) fn ascending() -> Column {
        Column {
            base: 0,
            stride: 1,
            differences: Differences::Zero,
        }
    }

    /// An empty column of numbers that stay the same.
    pub(super) fn constant() -> Column {
        Column {
            base: 0,
            stride: 0,
            differences: Differences::Zero,
        }
    }

    pub(super) fn get(&self, at: usize) -> i64 {
        let difference = match &self.differences {
            Differences::Zero => 0,
            Differences::Bytes2(narrow) => i64::from(narrow[at]),
            Differences::Bytes4(narrow) => i64::from(narrow[at]),
            Differences::Bytes8(wide) => wide[at],
        };
        self.line(at).wrapping_add(difference)
    }

    /// Whether number `i` is exactly `i` above the first.
    pub(super) fn is_straight(&self) -> bool {
        matches!(self.differences, Differences::Zero)
    }

    /// Appends number `at`, which is the count of numbers so far.
    pub(super) fn push(&mut self, at: usize, value: i64) {
        if at == 0 {
            self.base = value;
            self.differences = Differences::Zero;
            return;
        }
        let difference = value.wrapping_sub(self.line(at));
        self.make_room(at, difference);
        match &mut self.differences {
            Differences::Zero => {}
            Differences::Bytes2(narrow) => narrow.push(difference as u16),
            Differences::Bytes4(narrow) => narrow.push(difference as u32),
            Differences::Bytes8(wide) => wide.push(difference),
        }
    }

    /// Replaces number `at` of `len`.
    pub(super) fn set(&mut self, at: usize, len: usize, value: i64) {
        let difference = value.wrapping_sub(self.line(at));
        self.make_room(len, difference);
        match &mut self.differences {
            Differences::Zero => {}
            Differences::Bytes2(narrow) => narrow[at] = difference as u16,
            Differences::Bytes4(narrow) => narrow[at] = difference as u32,
            Differences::Bytes8(wide) => wide[at] = difference,
        }
    }

    /// Gives back memory reserved for growth.
    pub(super) fn shrink(&mut self) {
        match &mut self.differences {
            Differences::Zero => {}
            Differences::Bytes2(narrow) => narrow.shrink_to_fit(),
            Differences::Bytes4(narrow) => narrow.shrink_to_fit(),
            Differences::Bytes8(wide) => wide.shrink_to_fit(),
        }
    }

    pub(super) fn heap_bytes(&self) -> usize {
        match &self.differences {
            Differences::Zero => 0,
            Differences::Bytes2(narrow) => narrow.capacity() * 2,
            Differences::Bytes4(narrow) => narrow.capacity() * 4,
            Differences::Bytes8(wide) => wide.capacity() * 8,
        }
    }

    fn line(&self, at: usize) -> i64 {
        self.base.wrapping_add(self.stride * at as i64)
    }

    /// Widens the differences of `len` numbers until one more of this size fits.
    fn make_room(&mut self, len: usize, difference: i64) {
        let fits = match self.differences {
            Differences::Zero => difference == 0,
            Differences::Bytes2(_) => u16::try_from(difference).is_ok(),
            Differences::Bytes4(_) => u32::try_from(difference).is_ok(),
            Differences::Bytes8(_) => true,
        };
        if fits {
            return;
        }
        let old = (0..len).map(|at| self.get(at).wrapping_sub(self.line(at)));
        // The old ones are at least as narrow: the widths only grow.
        self.differences = if u16::try_from(difference).is_ok() {
            Differences::Bytes2(old.map(|old| old as u16).collect())
        } else if u32::try_from(difference).is_ok() {
            Differences::Bytes4(old.map(|old| old as u32).collect())
        } else {
            Differences::Bytes8(old.collect())
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn number() -> impl Strategy<Value = i64> {
        prop_oneof![0i64..4, 0i64..100_000, any::<i64>()]
    }

    proptest! {
        #[test]
        fn a_column_holds_what_was_put(
            numbers in vec(number(), 1..40), changes in vec((any::<usize>(), number()), 0..10),
            ascending: bool,
        ) {
            let mut column = if ascending { Column::ascending() } else { Column::constant() };
            let mut plain = numbers;
            for (at, &number) in plain.iter().enumerate() {
                column.push(at, number);
            }
            for (at, number) in changes {
                let at = at % plain.len();
                plain[at] = number;
                column.set(at, plain.len(), number);
            }
            column.shrink();
            let held: Vec<i64> = (0..plain.len()).map(|at| column.get(at)).collect();
            prop_assert_eq!(held, plain);
        }
    }

    #[test]
    fn neighbours_cost_nothing_and_small_steps_little() {
        let mut column = Column::ascending();
        (0..1000).for_each(|at| column.push(at, 5 + at as i64));
        assert!(column.is_straight() && column.heap_bytes() == 0);
        column.push(1000, 2000);
        column.shrink();
        assert_eq!(column.heap_bytes(), 2002);
    }
}
