"""Making a site's folder: the layout that `client.settings` describes, with the right modes."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import tomli_w
from pydantic import BaseModel

from client.settings import SiteSettings
from client.site_recipes import keep_recipe
from common.folders import new_folder, write_private, write_public
from common.recipe import Recipe
from common.signing import VerifyKey

FOLDERS = ("keys", "trust", "trust/plan-keys", "data", "data/images", "logs")


@dataclass(frozen=True)
class NodeKey:
    """A SuperNode's identity: an EC P-384 key pair, both halves in OpenSSH format."""

    private: bytes
    public: bytes


def create_site_folder(
    folder: Path,
    *,
    name: str,
    task: str,
    plan_keys: Sequence[bytes],
    policy: BaseModel | str,
    recipe: Recipe | None = None,
    settings: Mapping[str, object] | None = None,
    root_json: bytes | None = None,
    ca_certificate: bytes | None = None,
    node_key: NodeKey | None = None,
    site_certificate: tuple[bytes, bytes] | None = None,
    pseudonym_key: bytes | None = None,
) -> SiteSettings:
    """Make a new site folder, whole or not at all.

    Parameters
    ----------
    folder : Path
        Must not exist, or be empty.
    name, task : str
        The site's identifier and the recipe that it trains.
    plan_keys : sequence of bytes
        The coordinator's public plan keys, PEM.
    policy : SitePolicy or str
        The site's policy, or the text of its ``policy.toml``.
    recipe : Recipe, optional
        What the site is to understand by ``task``; the installed recipe of that name otherwise.
    settings : mapping, optional
        Further fields of `SiteSettings`, such as ``port`` or ``holdout_fraction``.
    root_json, ca_certificate : bytes, optional
        First TUF root and the coordinator's CA (PEM); a simulation needs neither.
    node_key : NodeKey, optional
        The identity of the site's SuperNode; a simulation needs none.
    site_certificate : tuple of bytes, optional
        Certificate and private key (PEM) that the coordinator's gateway asks for.
    pseudonym_key : bytes, optional
        32 bytes, of a simulation that is to hold the same patients out again; random otherwise.

    Raises
    ------
    ConfigurationError
        If the folder holds something already (code ``folder-exists``), or a setting is wrong.
    """
    fields = {"name": name, "task": task, **(settings or {})}
    with new_folder(folder) as draft:
        for part in FOLDERS:
            (draft / part).mkdir(mode=0o700)
        write_public(draft / "site.toml", tomli_w.dumps(fields).encode())
        write_public(draft / "policy.toml", _policy_text(policy).encode())
        key = pseudonym_key or secrets.token_bytes(32)
        write_private(draft / "keys" / "pseudonyms", key.hex().encode())
        write_private(draft / "keys" / "superexec.secret", secrets.token_bytes(32))
        _write_trust(draft / "trust", plan_keys, root_json, ca_certificate)
        if node_key is not None:
            write_private(draft / "keys" / "node", node_key.private)
            write_public(draft / "keys" / "node.pub", node_key.public)
        if site_certificate is not None:
            write_public(draft / "keys" / "site.crt", site_certificate[0])
            write_private(draft / "keys" / "site.key", site_certificate[1])
        made = SiteSettings.read(draft)  # refuses a wrong field before anything is in place
        if recipe is not None:
            keep_recipe(made, recipe)
    return SiteSettings.read(folder)


def _policy_text(policy: BaseModel | str) -> str:
    if isinstance(policy, str):
        return policy
    return tomli_w.dumps(policy.model_dump(mode="json", exclude_none=True))


def _write_trust(
    trust: Path, plan_keys: Sequence[bytes], root_json: bytes | None, ca: bytes | None
) -> None:
    for index, pem in enumerate(plan_keys, start=1):
        path = trust / "plan-keys" / f"{index}.pem"
        write_public(path, pem)
        VerifyKey.read(path)  # refuses what is no Ed25519 public key
    if root_json is not None:
        write_public(trust / "root.json", root_json)
    if ca is not None:
        write_public(trust / "ca.crt", ca)
