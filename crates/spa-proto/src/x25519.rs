//! X25519 (RFC 7748, section 5), by the quickest way that the crates of dalek have.
//!
//! The Montgomery ladder, which x25519-dalek is, does one multiplication after the other. The same curve in Edwards form
//! (RFC 7748, section 4.1, gives the map) has arithmetic that curve25519-dalek does four numbers at a time where the
//! processor has AVX2, which it finds out at run time: two thirds of the ladder's instructions. Without AVX2 both take as many.
//! Both run in time that does not depend on the scalar. Which of them is taken depends on the point alone, which was on
//! the wire.

use curve25519_dalek::montgomery::MontgomeryPoint;
use zeroize::Zeroizing;

use crate::keys::KEY_LENGTH;

/// The u-coordinate of `scalar` (clamped here) times the point with the u-coordinate `u`, whose highest bit is ignored;
/// all zero where the point is of low order.
pub(crate) fn x25519(scalar: &[u8; KEY_LENGTH], u: &[u8; KEY_LENGTH]) -> Zeroizing<[u8; KEY_LENGTH]> {
    // Which of the two points with this u-coordinate: their multiples differ in the sign alone, which u does not tell.
    match MontgomeryPoint(*u).to_edwards(0) {
        Some(point) => {
            let product = Zeroizing::new(point.mul_clamped(*scalar));
            Zeroizing::new(product.to_montgomery().to_bytes())
        }
        // On the twist. No honest peer sends one, but X25519 is defined for it.
        None => Zeroizing::new(x25519_dalek::x25519(*scalar, *u)),
    }
}

/// The public key of a private key: its multiple of the base point, from a table.
pub(crate) fn base_point_times(scalar: &[u8; KEY_LENGTH]) -> [u8; KEY_LENGTH] {
    MontgomeryPoint::mul_base_clamped(*scalar).to_bytes()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PRIME_LOW: u8 = 0xed;

    /// The number `low` above 2^255 - 19 - 0xed, little-endian: around the prime, where encodings are not canonical.
    fn around_the_prime(low: u8) -> [u8; KEY_LENGTH] {
        let mut number = [0xff; KEY_LENGTH];
        (number[0], number[31]) = (low, 0x7f);
        number
    }

    fn is_the_ladders(scalar: [u8; KEY_LENGTH], u: [u8; KEY_LENGTH]) {
        assert_eq!(*x25519(&scalar, &u), x25519_dalek::x25519(scalar, u), "{scalar:?} times {u:?}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]

        /// Any point: half of all numbers are on the curve, the others on its twist.
        #[test]
        fn any_point_is_as_by_the_ladder(scalar: [u8; KEY_LENGTH], u: [u8; KEY_LENGTH]) {
            is_the_ladders(scalar, u);
        }

        /// Points of the prime-order subgroup, which is what honest peers send, and public keys.
        #[test]
        fn honest_keys_are_as_by_the_ladder(scalar: [u8; KEY_LENGTH], other: [u8; KEY_LENGTH]) {
            let u = x25519_dalek::x25519(other, x25519_dalek::X25519_BASEPOINT_BYTES);
            prop_assert_eq!(base_point_times(&other), u);
            is_the_ladders(scalar, u);
        }
    }

    #[test]
    fn both_forms_are_taken() {
        let small = |u: u8| core::array::from_fn(|place| if place == 0 { u } else { 0 });
        let on_the_curve = |u: &u8| MontgomeryPoint(small(*u)).to_edwards(0).is_some();
        let count = (2..=255).filter(on_the_curve).count();
        assert!((64..190).contains(&count), "{count}");
        (0..=255).for_each(|u| is_the_ladders([0x5a; KEY_LENGTH], small(u)));
    }

    /// Low order, the prime itself and what is beyond it, with the highest bit and without, and extreme scalars.
    #[test]
    fn what_is_special_is_as_by_the_ladder() {
        let mut points: Vec<_> = crate::keys::LOW_ORDER.to_vec();
        points.extend((PRIME_LOW - 3..=0xff).map(around_the_prime));
        // With a point of order 8 added, outside of the prime-order subgroup.
        let torsion = curve25519_dalek::constants::EIGHT_TORSION;
        let point = curve25519_dalek::constants::ED25519_BASEPOINT_POINT;
        points.extend(torsion.iter().map(|small| (point + small).to_montgomery().to_bytes()));
        let high: Vec<_> = points
            .iter()
            .map(|point| {
                let mut high = *point;
                high[31] |= 0x80;
                high
            })
            .collect();
        for u in points.into_iter().chain(high) {
            for scalar in [[0; KEY_LENGTH], [0xff; KEY_LENGTH], [7; KEY_LENGTH]] {
                is_the_ladders(scalar, u);
            }
        }
    }
}
