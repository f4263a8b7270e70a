use super::*;

#[test]
fn axes_divide_only_where_their_digits_do() {
    let row = |stride, length| Digit { role: Role::Row, stride, length };
    let column = |length| Digit { role: Role::Column, stride: 1, length };
    let layout = vec![AxisLayout::whole(Role::Row, 12), AxisLayout::whole(Role::Column, 5)];
    let reshaped = |to: &[usize]| reshape::reshaped(&layout, &[12, 5].into(), &to.to_vec().into());
    assert_eq!(reshaped(&[60])[0].digits, [row(1, 12), column(5)]);
    assert_eq!(reshaped(&[3, 4, 5])[0].digits, [row(4, 3)]);
    assert_eq!(reshaped(&[3, 20])[1].digits, [row(1, 4), column(5)]);
    assert_eq!(reshaped(&[1, 12, 1, 5])[1].digits, [row(1, 12)]);
    assert_eq!(reshaped(&[5, 12]), [AxisLayout::unknown(5), AxisLayout::unknown(12)]);
    // Parts that follow each other are one again.
    assert_eq!(AxisLayout::of([row(4, 3), row(1, 4)]).digits, [row(1, 12)]);
    assert_eq!(AxisLayout::of([row(1, 4), row(4, 3)]).digits.len(), 2);
}
