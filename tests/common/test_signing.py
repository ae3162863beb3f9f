from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from hypothesis import given
from hypothesis import strategies as st

from common.errors import ConfigurationError
from common.signing import Signature, SigningKey, VerifyKey

KEY = SigningKey.generate()


@given(payload=st.binary(max_size=300))
def test_a_signature_is_for_exact_bytes_and_one_key(payload: bytes) -> None:
    signature = KEY.sign(payload)
    assert KEY.verify_key.accepts(payload, signature)
    assert not KEY.verify_key.accepts(payload + b"\0", signature)
    assert not SigningKey.generate().verify_key.accepts(payload, signature)


@given(value=st.binary(max_size=80), key_id=st.text(max_size=20))
def test_no_made_up_signature_is_accepted(value: bytes, key_id: str) -> None:
    assert not KEY.verify_key.accepts(b"payload", Signature(key_id, value))
    assert not KEY.verify_key.accepts(b"payload", Signature(KEY.verify_key.key_id, value))


def test_keys_survive_their_files(tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_bytes(KEY.pem())
    (tmp_path / "key.pub").write_bytes(KEY.verify_key.pem())
    signature = SigningKey.read(tmp_path / "key.pem").sign(b"payload")
    assert VerifyKey.read(tmp_path / "key.pub").accepts(b"payload", signature)


@pytest.mark.parametrize("content", [None, b"", b"text", KEY.verify_key.pem()[:40]])
def test_a_file_that_is_no_key_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "key.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"key\.pem"):
        SigningKey.read(path)
    with pytest.raises(ConfigurationError, match=r"key\.pem"):
        VerifyKey.read(path)


def test_keys_of_another_kind_are_refused(tmp_path: Path) -> None:
    key = generate_private_key(SECP256R1())
    private, public = tmp_path / "private.pem", tmp_path / "public.pem"
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    public.write_bytes(
        key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    with pytest.raises(ConfigurationError, match="no Ed25519"):
        SigningKey.read(private)
    with pytest.raises(ConfigurationError, match="no Ed25519"):
        VerifyKey.read(public)
