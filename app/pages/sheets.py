"""Sheets: the page on which one row is shown, changed, added or deleted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar
from uuid import UUID

from flask import flash, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from sqlalchemy.exc import IntegrityError

from app.auth.access import require_principal
from app.db import session
from app.errors import RowNotFoundError
from app.members.permissions import Permission
from app.pages.forms import Form
from app.schemas import Body


class Named(Protocol):
    """A row with a name to speak of it by."""

    id: Any
    name: Any


Row = TypeVar("Row", bound=Named)


@dataclass(frozen=True)
class Sheet(Generic[Row]):
    """What differs between the rows that have such a page.

    noun: as in "Delete person"; the template is `crm/<noun>.html`.
    back: endpoint of the list. shape: checks what was sent. fields: shown by default, each an attribute of the row.
    consequence: what a deletion does to other rows.
    choices: what the template's selects offer, read anew for each page.
    told: by a constraint's name, the field it is about and what to say beside it.
    shown, stored: turn a row into the form's values, and what was sent into the row's.
    """

    model: type[Row]
    noun: str
    back: str
    shape: type[Body]
    fields: tuple[str, ...]
    consequence: str
    choices: Callable[[Row | None], Mapping[str, Any]]
    told: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    shown: Callable[[Row], Mapping[str, Any]] = lambda _row: {}
    stored: Callable[[Any], Mapping[str, Any]] = lambda given: given.model_dump()

    def answer(self, row_id: UUID | None) -> ResponseReturnValue:
        """Show the form, or take what was sent. None adds a row.

        Raises: RowNotFoundError - there is no such row in this tenant.
        """
        row = None if row_id is None else self._found(row_id)
        if request.method == "GET":
            return self._page(row, Form(self._values(row)))
        form = Form(request.form)
        given = form.check(self.shape)
        if given is None:
            return self._page(row, form), 400
        values = self.stored(given)
        if not self._store(row, values, form):
            return self._page(row, form), 409
        flash(f"{values['name']} was {'added' if row is None else 'saved'}.")
        return redirect(url_for(self.back), 303)

    def confirm_delete(self, row_id: UUID) -> ResponseReturnValue:
        """Ask before deleting."""
        row = self._found(row_id)
        return render_template("crm/delete.html", row=row, noun=self.noun, back=self.back, consequence=self.consequence)

    def delete(self, row_id: UUID) -> ResponseReturnValue:
        """Delete the row."""
        row = self._found(row_id)
        name = row.name
        session().delete(row)
        session().commit()
        flash(f"{name} was deleted.")
        return redirect(url_for(self.back), 303)

    def _found(self, row_id: UUID) -> Row:
        row: Row | None = session().get(self.model, row_id)
        if row is None:
            raise RowNotFoundError
        return row

    def _values(self, row: Row | None) -> Mapping[str, Any]:
        if row is None:
            return {name: info.default for name, info in self.shape.model_fields.items() if not info.is_required()}
        return {**{name: getattr(row, name) for name in self.fields}, **self.shown(row)}

    def _store(self, row: Row | None, values: Mapping[str, Any], form: Form) -> bool:
        """Write the row; False when the database refused a field, which the form then says."""
        changed = self.model() if row is None else row
        for name, value in values.items():
            setattr(changed, name, value)
        session().add(changed)
        try:
            session().commit()
        except IntegrityError as error:
            session().rollback()
            form.refuse(error, self.told)
            return False
        return True

    def _page(self, row: Row | None, form: Form) -> str:
        granted = require_principal().permissions
        return render_template(
            f"crm/{self.noun}.html",
            row=row,
            form=form,
            may_write=Permission.CRM_WRITE in granted,
            may_delete=Permission.CRM_DELETE in granted,
            **self.choices(row),
        )
