//! Each different vector once.

use foldhash::{HashMap, HashMapExt};

use super::{Chunk, Vector};

/// Vectors of one length, found by what they hold.
pub(super) struct Intern {
    chunks: usize,
    vectors: Vec<Chunk>,
    known: HashMap<Box<[Chunk]>, Vector>,
}

impl Intern {
    pub fn new(chunks: usize) -> Self {
        Self { chunks, vectors: Vec::new(), known: HashMap::new() }
    }

    /// Chunks of a vector.
    pub fn chunks(&self) -> usize {
        self.chunks
    }

    /// The number of a vector; `None` if there are no more numbers.
    pub fn number(&mut self, vector: &[Chunk]) -> Option<Vector> {
        if let Some(number) = self.known.get(vector) {
            return Some(*number);
        }
        let number = Vector(u16::try_from(self.known.len()).ok()?);
        self.known.insert(vector.into(), number);
        self.vectors.extend_from_slice(vector);
        Some(number)
    }

    /// The number of what two vectors have in common; `None` if there are no more numbers.
    pub fn join(&mut self, Vector(one): Vector, Vector(other): Vector) -> Option<Vector> {
        let [one, other] = [one, other].map(|number| &self.vectors[usize::from(number) * self.chunks..]);
        let joined: Vec<Chunk> =
            one.iter().zip(other).take(self.chunks).map(|(one, other)| Chunk::joined([one, other])).collect();
        self.number(&joined)
    }

    /// All vectors, by number.
    pub fn into_vectors(self) -> Vec<Chunk> {
        self.vectors
    }
}
