use super::*;
use proptest::prelude::*;
use std::time::{Duration, Instant};

/// Expressions with what Python 3 says of them, made by `golden/make.py`.
const GOLDEN: &str = include_str!("../golden/expressions.tsv");

#[test]
fn a4_5_every_expression_of_the_golden_file_gives_what_python_gave() {
    let mut seen = 0;
    for line in GOLDEN.lines().filter(|line| !line.starts_with('#')) {
        let (expression, wanted) = line.split_once('\t').expect("two columns");
        let found = answer(expression, Division::True);
        assert_eq!(found, wanted, "{expression}");
        seen += 1;
    }
    assert!(seen > 500, "only {seen} expressions");
}

#[test]
fn a4_5_a_slash_divides_integers_as_in_python_2_when_asked_to() {
    let py2 = |text| answer(text, Division::Integer);
    assert_eq!(py2("7/2"), "3");
    assert_eq!(py2("-7/2"), "-4");
    assert_eq!(py2("7/2.0"), "3.5");
    assert_eq!(py2("3+5-4/3*4"), "4");
    assert_eq!(py2("1/0"), INVALID_EXPRESSION);
}

#[test]
fn a4_6_r4_19_what_is_no_arithmetic_is_invalid_and_nothing_is_executed() {
    for text in [
        "",
        " ",
        "()",
        "1+",
        "*2",
        "(1",
        "1)",
        "1 2",
        "a",
        "1+a",
        "2**",
        "1..2",
        ".",
        "e5",
        "1e",
        "1e+",
        "0x10",
        "1j",
        "007",
        "1__0",
        "_1",
        "1_",
        "1,2",
        "1==1",
        "[1]",
        "__import__('os').system('true')",
        "open('/etc/passwd')",
        "1;2",
        "1\n+1",
        "10**5000",
        "2**10**10",
        "9**9**9**9",
        "2.0**100000",
        "10**400*1.0",
        "0**-1",
        "0.0**-1",
        "(-8)**0.5",
        "1%0",
        "1//0.0",
        "٣+١",
        "1+\u{0}",
    ] {
        assert_eq!(answer(text, Division::True), INVALID_EXPRESSION, "{text:?}");
    }
}

#[test]
fn the_largest_that_is_computed_is_shown_only_if_python_would() {
    let shown = |text: &str| answer(text, Division::True);
    assert_eq!(shown("10**4299").len(), DIGITS_SHOWN_MAX);
    assert_eq!(shown("10**4300"), INVALID_EXPRESSION);
    assert_eq!(shown("10**5000//10**4999"), "10");
    assert_eq!(shown("(-1)**(10**400+1)"), "-1");
    let (deep, deeper) = (200, 201);
    let nested = |depth: usize| format!("{}1{}", "(".repeat(depth), ")".repeat(depth));
    assert_eq!(shown(&nested(deep)), "1");
    assert_eq!(
        evaluate(&nested(deeper), Division::True),
        Err(Invalid::TooDeep)
    );
    assert_eq!(shown(&format!("{}1", "-".repeat(511))), "-1");
    assert_eq!(
        evaluate(&"1".repeat(513), Division::True),
        Err(Invalid::TooLong)
    );
}

#[test]
fn the_dearest_text_is_evaluated_in_a_moment() {
    let large = "(7**23340)";
    let text = format!("{large}%(7**11670){}", "*7**11660%7**11670".repeat(27));
    assert!(text.len() <= TEXT_BYTES_MAX, "{}", text.len());
    let begun = Instant::now();
    let _ = answer(&text, Division::True);
    // Some hundredths of a second; a machine may be busy, too.
    assert!(
        begun.elapsed() < Duration::from_secs(20),
        "{:?}",
        begun.elapsed()
    );
}

/// What Python prints of `m / 2^k`, by whole numbers alone: of the fewest decimals that lie nearer to it than to its neighbours, which are `1 / 2^k` away,
/// the nearest, and of two that are as near the even one.
fn printed_by_python(m: u64, k: u32) -> String {
    let (m, one) = (u128::from(m), 1_u128 << k);
    for decimals in 0..=k as usize {
        let unit = 10_u128.pow(decimals as u32);
        let (below, rest) = (m * unit / one, m * unit % one);
        let up = 2 * rest > one || (2 * rest == one && below % 2 == 1);
        let nearest = below + u128::from(up);
        if 2 * (nearest * one).abs_diff(m * unit) < unit {
            let (whole, fraction) = (nearest / unit, nearest % unit);
            return format!("{whole}.{fraction:0>width$}", width = decimals.max(1));
        }
    }
    unreachable!("as many decimals as there are halvings are exact")
}

#[test]
fn a4_5_of_two_decimals_that_are_as_near_the_even_one_is_shown() {
    let quarters = |m| answer(&format!("{m}/4"), Division::True);
    let first = 1_u64 << 52; // 2^50 in quarters.
    let shown = (1..=4).map(|m| quarters(first + m));
    let wanted = ["24.2", "24.5", "24.8", "25.0"].map(|end| format!("11258999068426{end}"));
    assert_eq!(shown.collect::<Vec<_>>(), wanted);
    assert_eq!(printed_by_python(first + 1, 2), wanted[0]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn a4_5_quarters_and_finer_are_shown_as_python_shows_them(m in (1_u64 << 52) + 1..1 << 53, k in 1_u32..=8) {
        let text = format!("{m}/{}", 1 << k);
        prop_assert_eq!(answer(&text, Division::True), printed_by_python(m, k));
    }

    #[test]
    fn a4_5_quarters_from_2_to_the_44_on_are_shown_as_python_shows_them(exponent in 44_u32..51, rest in any::<u64>()) {
        // As many halvings as give the whole 53 bits.
        let (k, quarter) = (52 - exponent, 50 - exponent);
        let quarters = rest % (1 << (exponent + 2));
        let m = (1_u64 << 52) + (quarters << quarter);
        prop_assume!(m > 1 << 52);
        let text = format!("{m}/{}", 1_u64 << k);
        prop_assert_eq!(answer(&text, Division::True), printed_by_python(m, k));
    }

    #[test]
    fn r4_19_no_text_makes_it_panic(text in "\\PC{0,80}") {
        let _ = answer(&text, Division::True);
    }

    #[test]
    fn r4_19_no_text_of_its_own_letters_makes_it_panic(text in "[0-9.e+*/%() _-]{0,60}") {
        let _ = answer(&text, Division::True);
        let _ = answer(&text, Division::Integer);
    }

    #[test]
    fn a_quotient_and_its_remainder_make_the_dividend_again(a in any::<i64>(), b in any::<i64>()) {
        prop_assume!(b != 0);
        let text = format!("({a})//({b})*({b})+({a})%({b})");
        prop_assert_eq!(answer(&text, Division::True), a.to_string());
    }

    #[test]
    fn a_float_is_shown_so_that_it_is_read_as_the_same(bits in any::<u64>()) {
        let value = f64::from_bits(bits);
        prop_assume!(value.is_finite());
        let shown = Number::Float(value).shown().expect("a float");
        let read: f64 = shown.parse().expect("a float again");
        prop_assert_eq!(read.to_bits(), bits);
    }
}
