from pathlib import Path

import pytest

from simulations.split_column import dividing_column


@pytest.mark.parametrize(
    ("table", "column"),
    [
        ("file,label,fold\na,x,train\nb,y,test\n", "fold"),
        ("file,label,fold\na,x,Training\nb,y, val \n", "fold"),
        ("file,label,fold\na,x,0\nb,y,1\n", "split"),
        ("file,label,fold\na,x,train\nb,y,\n", "split"),
        ("file,label,fold\na,x,train\nb,y,train\n", "split"),
        ("file,label,fold,split\na,x,train,test\nb,y,test,train\n", "split"),
        ("file,label\na,x\n", "split"),
        ("file,label,fold\na,x\n", "split"),
        ("", "split"),
        ("file;label;fold\na;x;train\nb;y;test\n", "fold"),
        ("file\tlabel\tfold\na\tx\ttrain\nb\ty\ttest\n", "fold"),
        ("file, label, fold\na, x, train\nb, y, test\n", "fold"),
        ("file,label,fold\na,x,train\n\nb,y,test\nc,y\n", "fold"),
    ],
)
def test_a_fold_counts_where_every_row_says_train_or_test(
    table: str, column: str, tmp_path: Path
) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(table)
    assert dividing_column(path) == column


def test_a_table_that_cannot_be_read_is_left_to_the_import(tmp_path: Path) -> None:
    assert dividing_column(tmp_path / "none.csv") == "split"
    (tmp_path / "bytes.csv").write_bytes(b"file,fold\n\xff\xfe,train\n")
    assert dividing_column(tmp_path / "bytes.csv") == "split"
