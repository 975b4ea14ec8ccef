"""Add files and the card collection."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

_FILE_COLUMNS = ["name", "content_type", "size_bytes", "sha256", "created_at"]
_CARD_COLUMNS = [
    "number",
    "year",
    "condition",
    "notes",
    "manufacturer_id",
    "team_id",
    "player_id",
    "image_id",
    "created_at",
    "updated_at",
]


def upgrade() -> None:
    op.create_table(
        "file_totals",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("size_bytes >= 0", name=op.f("ck_file_totals_size_positive")),
        sa.PrimaryKeyConstraint("tenant_id", "kind", name=op.f("pk_file_totals")),
    )
    op.create_table(
        "files",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("content_type", sa.Text(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("size_bytes >= 0", name=op.f("ck_files_size_positive")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_files")),
    )
    op.create_index("ix_files_created_at", "files", ["tenant_id", "created_at"], unique=False)
    op.create_table(
        "manufacturers",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_manufacturers")),
        sa.UniqueConstraint("tenant_id", "name", name=op.f("uq_manufacturers_tenant_id_name")),
    )
    op.create_index("ix_manufacturers_created_at", "manufacturers", ["tenant_id", "created_at"], unique=False)
    op.create_table(
        "teams",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_teams")),
        sa.UniqueConstraint("tenant_id", "name", name=op.f("uq_teams_tenant_id_name")),
    )
    op.create_index("ix_teams_created_at", "teams", ["tenant_id", "created_at"], unique=False)
    op.create_table(
        "players",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("team_id", sa.Uuid(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id", "team_id"],
            ["teams.tenant_id", "teams.id"],
            name=op.f("fk_players_tenant_id_team_id"),
            ondelete="SET NULL (team_id)",
        ),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_players")),
        sa.UniqueConstraint("tenant_id", "name", name=op.f("uq_players_tenant_id_name")),
    )
    op.create_index("ix_players_created_at", "players", ["tenant_id", "created_at"], unique=False)
    op.create_index("ix_players_team_id", "players", ["tenant_id", "team_id"], unique=False)
    op.create_table(
        "cards",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.Text(), nullable=False),
        sa.Column("year", sa.Integer(), nullable=False),
        sa.Column("condition", sa.Text(), nullable=False),
        sa.Column("notes", sa.Text(), nullable=True),
        sa.Column("manufacturer_id", sa.Uuid(), nullable=True),
        sa.Column("team_id", sa.Uuid(), nullable=True),
        sa.Column("player_id", sa.Uuid(), nullable=True),
        sa.Column("image_id", sa.Uuid(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "condition IN ('mint', 'near_mint', 'excellent', 'good', 'fair', 'poor')",
            name=op.f("ck_cards_condition_known"),
        ),
        sa.CheckConstraint("year BETWEEN 1800 AND 2200", name=op.f("ck_cards_year_possible")),
        sa.ForeignKeyConstraint(
            ["tenant_id", "image_id"],
            ["files.tenant_id", "files.id"],
            name=op.f("fk_cards_tenant_id_image_id"),
            ondelete="SET NULL (image_id)",
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "manufacturer_id"],
            ["manufacturers.tenant_id", "manufacturers.id"],
            name=op.f("fk_cards_tenant_id_manufacturer_id"),
            ondelete="SET NULL (manufacturer_id)",
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "player_id"],
            ["players.tenant_id", "players.id"],
            name=op.f("fk_cards_tenant_id_player_id"),
            ondelete="SET NULL (player_id)",
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "team_id"],
            ["teams.tenant_id", "teams.id"],
            name=op.f("fk_cards_tenant_id_team_id"),
            ondelete="SET NULL (team_id)",
        ),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_cards")),
        sa.UniqueConstraint("tenant_id", "image_id", name=op.f("uq_cards_tenant_id_image_id")),
        sa.UniqueConstraint(
            "tenant_id",
            "manufacturer_id",
            "year",
            "number",
            name=op.f("uq_cards_tenant_id_manufacturer_id_year_number"),
        ),
    )
    op.create_index("ix_cards_created_at", "cards", ["tenant_id", "created_at"], unique=False)
    op.create_index("ix_cards_number", "cards", ["tenant_id", "number"], unique=False)
    op.create_index("ix_cards_player_id", "cards", ["tenant_id", "player_id"], unique=False)
    op.create_index("ix_cards_team_id", "cards", ["tenant_id", "team_id"], unique=False)
    op.create_index("ix_cards_year", "cards", ["tenant_id", "year"], unique=False)
    op.guard_table("file_totals", update=["size_bytes"])
    op.guard_table(
        "files", update=_FILE_COLUMNS, app=["SELECT", "INSERT", "DELETE"], platform=["SELECT", "INSERT", "DELETE"]
    )
    op.guard_table("manufacturers", update=["name", "created_at", "updated_at"])
    op.guard_table("teams", update=["name", "created_at", "updated_at"])
    op.guard_table("players", update=["name", "team_id", "created_at", "updated_at"])
    op.guard_table("cards", update=_CARD_COLUMNS)


def downgrade() -> None:

    op.unguard_table("cards", update=_CARD_COLUMNS)
    op.unguard_table("players", update=["name", "team_id", "created_at", "updated_at"])
    op.unguard_table("teams", update=["name", "created_at", "updated_at"])
    op.unguard_table("manufacturers", update=["name", "created_at", "updated_at"])
    op.unguard_table(
        "files", update=_FILE_COLUMNS, app=["SELECT", "INSERT", "DELETE"], platform=["SELECT", "INSERT", "DELETE"]
    )
    op.unguard_table("file_totals", update=["size_bytes"])
    op.drop_index("ix_cards_year", table_name="cards")
    op.drop_index("ix_cards_team_id", table_name="cards")
    op.drop_index("ix_cards_player_id", table_name="cards")
    op.drop_index("ix_cards_number", table_name="cards")
    op.drop_index("ix_cards_created_at", table_name="cards")
    op.drop_table("cards")
    op.drop_index("ix_players_team_id", table_name="players")
    op.drop_index("ix_players_created_at", table_name="players")
    op.drop_table("players")
    op.drop_index("ix_teams_created_at", table_name="teams")
    op.drop_table("teams")
    op.drop_index("ix_manufacturers_created_at", table_name="manufacturers")
    op.drop_table("manufacturers")
    op.drop_index("ix_files_created_at", table_name="files")
    op.drop_table("files")
    op.drop_table("file_totals")
