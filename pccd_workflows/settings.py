"""Facts about this machine: database, folders, commands, devices. No science.

From ``PCCD_*`` environment variables, then ``~/.pccd.yaml`` (or the file in ``PCCD_CONFIG_FILE``).
"""

import os
from functools import lru_cache
from pathlib import Path
from typing import Literal

import yaml
from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    YamlConfigSettingsSource,
)

from pccd_workflows.core.errors import InputError
from pccd_workflows.core.resources import resource
from pccd_workflows.core.validation import explain


def _default_data_dir() -> Path:
    base = os.environ.get("XDG_DATA_HOME")
    return (Path(base) if base else Path.home() / ".local" / "share") / "pccd"


class Settings(BaseSettings):
    """Where things are on this machine."""

    model_config = SettingsConfigDict(env_prefix="PCCD_", extra="forbid", frozen=True)

    mongodb_uri: SecretStr | None = Field(
        None, description="mongodb://user:password@host/... of your server; unset = embedded mongod"
    )
    database: str = Field("pccd", description="Name of the MongoDB database")
    data_dir: Path = Field(
        default_factory=_default_data_dir,
        description="Embedded database, its credentials and the workers' run folders",
    )
    mongod: Path | None = Field(None, description="mongod to use; else PATH, else the wheel's")
    mongod_port: int = Field(27117, ge=1024, le=65535, description="Port of the embedded mongod")
    database_timeout: float = Field(10.0, gt=0, description="Seconds to wait for MongoDB")
    model_dir: Path = Field(default_factory=lambda: resource("model"))
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="Where models run")
    workers: int = Field(
        default_factory=lambda: max(1, min(os.cpu_count() or 1, 8)),
        ge=1,
        le=256,
        description="Local worker processes of `pccd campaign run`",
    )
    vasp_command: str = Field(
        "vasp_std", description="Runs VASP on a node, e.g. `srun vasp_std`; $VARIABLES are expanded"
    )
    vasp_gamma_command: str = Field("vasp_gam", description="The same for Γ-point-only meshes")
    vasp_walltime: float | None = Field(
        None, gt=0, description="Seconds a queue job lasts: VASP is stopped before its end"
    )
    vasp_walltime_buffer: float = Field(
        300.0, gt=0, description="Seconds before the end at which VASP is told to stop"
    )
    vasp_frozen_seconds: float = Field(
        21600.0, gt=0, description="VASP that writes nothing for so long is stopped"
    )
    vasp_continuations: int = Field(
        5, ge=0, description="How often a run goes on by itself after reaching the walltime"
    )
    custodian_polling: float = Field(10.0, gt=0, description="Seconds between looks at VASP")
    custodian_check: float = Field(300.0, gt=0, description="Seconds between looks for errors")

    @field_validator("database")
    @classmethod
    def _database_name_is_plain(cls, value: str) -> str:
        if not value or len(value) > 60 or set(value) & set('/\\. "$*<>:|?\0'):
            raise ValueError("a MongoDB database name has no '/\\. \"$*<>:|?' and is not empty")
        return value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Order of precedence: arguments, environment, file."""
        return (init_settings, env_settings, YamlConfigSettingsSource(settings_cls, config_file()))


def config_file() -> Path:
    """Return the settings file of this user; it need not exist."""
    return Path(os.environ.get("PCCD_CONFIG_FILE", "~/.pccd.yaml")).expanduser()


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """Return this process's settings.

    Raises
    ------
    InputError
        A variable or the settings file is wrong.
    """
    try:
        return Settings()
    except ValidationError as error:
        raise InputError(
            f"Settings (PCCD_* or {config_file()}): {explain(error, Settings)}"
        ) from None
    except yaml.YAMLError:
        raise InputError(f"Settings file {config_file()} is not valid YAML.") from None
