//! What consumers say of themselves: how much of a class they use on a server, and on which epoch they act.
//!
//! Without an ack a class counts as in use, because most consumers never send one and must be protected all the same.

use headroom_model::codec::{DecodeError, Decoder, Encoder};

/// The version written in front of the table.
const ACK_VERSION: u8 = 1;

/// One class of all servers.
#[derive(Clone, Debug, Default, PartialEq)]
struct Column {
    in_use: Vec<f32>,
    epoch: Vec<i64>,
    at: Vec<i64>,
}

/// The latest ack per slot and class. Columns are as long as the highest slot that ever sent one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AckTable {
    classes: Vec<Column>,
}

impl AckTable {
    /// A table for so many classes, without acks.
    pub fn new(classes: usize) -> Self {
        Self { classes: vec![Column::default(); classes] }
    }

    /// Notes an ack: `in_use` is the share of the class's nominal in use (of all consumers together), `epoch` the
    /// decision it acts on, `tick_epoch` the tick at which it was heard. Classes beyond the table and shares that are no
    /// number are ignored.
    pub fn set(&mut self, slot: usize, class: usize, in_use: f64, epoch: i64, tick_epoch: i64) {
        let Some(column) = self.classes.get_mut(class).filter(|_| in_use.is_finite()) else { return };
        if column.at.len() <= slot {
            column.in_use.resize(slot + 1, f32::NAN);
            column.epoch.resize(slot + 1, i64::MIN);
            column.at.resize(slot + 1, i64::MIN);
        }
        column.in_use[slot] = in_use.max(0.0) as f32;
        column.epoch[slot] = epoch;
        column.at[slot] = tick_epoch;
    }

    /// The share in use by an ack that is at most `age_max_seconds` old; `None` without one.
    pub fn in_use(&self, slot: usize, class: usize, tick_epoch: i64, age_max_seconds: i64) -> Option<f32> {
        let column = self.classes.get(class)?;
        let at = *column.at.get(slot)?;
        let is_young = at != i64::MIN && tick_epoch.saturating_sub(at) <= age_max_seconds;
        is_young.then(|| column.in_use[slot])
    }

    /// The epoch that the latest ack acts on; `None` without an ack.
    pub fn epoch(&self, slot: usize, class: usize) -> Option<i64> {
        self.classes.get(class)?.epoch.get(slot).copied().filter(|epoch| *epoch != i64::MIN)
    }

    /// Forgets the acks of a server.
    pub fn remove_slot(&mut self, slot: usize) {
        for column in &mut self.classes {
            if slot < column.at.len() {
                (column.in_use[slot], column.epoch[slot], column.at[slot]) = (f32::NAN, i64::MIN, i64::MIN);
            }
        }
    }

    /// Writes the table.
    pub fn encode(&self, out: &mut Encoder) {
        out.put_u8(ACK_VERSION);
        out.put_u32(self.classes.len() as u32);
        for column in &self.classes {
            out.put_f32s(&column.in_use);
            out.put_i64s(&column.epoch);
            out.put_i64s(&column.at);
        }
    }

    /// Reads a table.
    ///
    /// # Errors
    /// If the bytes are damaged or of a newer version.
    pub fn decode(input: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        if input.get_u8()? != ACK_VERSION {
            return Err(input.error("version of the table of acks"));
        }
        let classes = (0..input.get_length(12, "acks")?)
            .map(|_| {
                let column = Column { in_use: input.get_f32s()?, epoch: input.get_i64s()?, at: input.get_i64s()? };
                let length = column.at.len();
                let agree = column.in_use.len() == length && column.epoch.len() == length;
                if agree { Ok(column) } else { Err(input.error("acks of a class")) }
            })
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self { classes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ack_ages_is_removed_and_survives_the_binary_form() {
        let mut acks = AckTable::new(2);
        acks.set(3, 1, 0.25, 90, 100);
        acks.set(3, 1, f64::NAN, 100, 110);
        acks.set(3, 2, 0.5, 90, 100);
        assert_eq!((acks.in_use(3, 1, 160, 60), acks.in_use(3, 1, 161, 60)), (Some(0.25), None));
        assert_eq!((acks.in_use(2, 1, 100, 60), acks.in_use(3, 0, 100, 60), acks.epoch(3, 1)), (None, None, Some(90)));
        let mut out = Encoder::default();
        acks.encode(&mut out);
        let restored = AckTable::decode(&mut Decoder::new(&out.bytes)).expect("decodes");
        assert_eq!(restored.in_use(3, 1, 160, 60), Some(0.25));
        acks.remove_slot(3);
        assert_eq!((acks.in_use(3, 1, 100, 60), acks.epoch(3, 1)), (None, None));
    }
}
