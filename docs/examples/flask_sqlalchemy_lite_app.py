import os

from flask import Flask
from flask_sqlalchemy_lite import SQLAlchemy
from sqlalchemy import select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from tenancy import SQLDirectory, TenantMixin, TenantTable
from tenancy.flask import Tenancy
from tenancy.resolvers import from_subdomain


class Base(DeclarativeBase):
    pass


class Tenant(TenantMixin, Base):  # new: the registry
    __tablename__ = "tenants"


class Todo(TenantTable, Base):  # new: the mixin
    __tablename__ = "todo"
    id: Mapped[int] = mapped_column(primary_key=True)  # type: ignore[assignment]  # its own serial id
    title: Mapped[str]


app = Flask(__name__)
app.config["SQLALCHEMY_ENGINES"] = {"default": os.environ["APP_URL"]}
db = SQLAlchemy(app)
tenancy = Tenancy(sessions=db, directory=SQLDirectory(Tenant), resolvers=[from_subdomain("localhost")])  # new
tenancy.init_app(app)  # new


@app.get("/todos")
def todos() -> list[str]:
    return list(db.session.scalars(select(Todo.title)))
